package dev.lorica.cli;

import dev.lorica.train.Setting;
import dev.lorica.train.SettingDefinition;
import dev.lorica.train.TrainingConfig;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.IGetter;
import picocli.CommandLine.Model.ISetter;
import picocli.CommandLine.Model.OptionSpec;

/** A class of options that commands mix in, which are settings of a training, with what the definition of each says. */
abstract class SettingOptions {
    private final Map<SettingDefinition, Object> values = new LinkedHashMap<>();

    /** Those that a command has, in the order of its help. */
    abstract List<? extends SettingDefinition> settings();

    /** For an option that is no word of our own, or that nothing being said about means something else. */
    void adapt(SettingDefinition setting, OptionSpec.Builder option) {}

    final void addTo(CommandSpec command) {
        for (SettingDefinition setting : settings()) {
            boolean word = setting.type().isEnum();
            boolean flag = setting.type() == Boolean.class;
            OptionSpec.Builder option = OptionSpec.builder("--" + setting.option())
                    .userObject(this)
                    .type(word ? String.class : setting.type())
                    .arity(flag ? "0" : "1")
                    .paramLabel(setting.label())
                    .description(setting.help().replaceAll("\\{([a-z-]+)}", "--$1"))
                    .initialValue(word ? setting.initial().toString() : setting.initial())
                    .getter(new IGetter() {
                        @Override
                        public <T> T get() {
                            return value(setting);
                        }
                    })
                    .setter(new ISetter() {
                        @Override
                        @SuppressWarnings("unchecked")
                        public <T> T set(T value) {
                            return (T) values.put(setting, value);
                        }
                    });
            adapt(setting, option);
            OptionSpec made = option.build();
            values.put(setting, made.initialValue());
            command.addOption(made);
        }
    }

    /** What was said, or what it is where nothing was. */
    @SuppressWarnings("unchecked")
    final <T> T value(SettingDefinition setting) {
        return (T) values.get(setting);
    }

    /** Whatever has a value of the setting's own kind. */
    final void fill(TrainingConfig.Builder config) {
        values.forEach((definition, value) -> {
            Setting setting = (Setting) definition;
            Object own = value instanceof String word ? setting.parsed(word) : value;
            if (own != null && own.getClass() == setting.type()) {
                config.set(setting, own);
            }
        });
    }
}
