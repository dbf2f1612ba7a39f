package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.InvalidArgumentException;
import java.lang.reflect.RecordComponent;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;

class SettingTest {
    @Test
    void theConfigurationHasAComponentForEverySettingAndNoOther() throws ReflectiveOperationException {
        for (RecordComponent component : TrainingConfig.class.getRecordComponents()) {
            Setting setting = Arrays.stream(Setting.values())
                    .filter(one -> one.component().equals(component.getName()))
                    .findFirst()
                    .orElseThrow(() -> new AssertionError(component.getName()));
            assertThat(component.getAccessor().invoke(TrainingConfig.defaults()))
                    .as(component.getName())
                    .isEqualTo(setting.initial());
        }
        assertThat(Setting.values()).hasSize(TrainingConfig.class.getRecordComponents().length);
    }

    @Test
    void noNameMeansTwoSettings() {
        Set<String> names = new HashSet<>();
        for (Setting setting : Setting.values()) {
            setting.otherNames()
                    .forEach(name -> assertThat(names.add(name)).as(name).isTrue());
            assertThat(setting.option() == null || names.add(setting.option()))
                    .as(setting.option())
                    .isTrue();
        }
    }

    @Test
    void helpShowsDefaultsAsPeopleWriteThem() {
        assertThat(Setting.LEARNING_RATE.help())
                .isEqualTo("Its peak. Default: 2e-4; of reward models 1e-4, of other objectives than sft 1e-5");
        assertThat(Setting.EPOCHS.help()).endsWith("Default: 3");
        assertThat(Setting.SCHEDULER_TYPE.help()).endsWith("Default: linear");
        assertThat(Setting.ADAM_EPSILON.help()).isEqualTo("Default: 1e-8");
    }

    @Test
    void aBuilderTakesValuesByTheirSettingAndRefusesThoseOfAnotherKind() {
        TrainingConfig config = TrainingConfig.builder()
                .set(Setting.BATCH_SIZE, 7)
                .set(Setting.LEARNING_RATE, 1e-3)
                .build();

        assertThat(config.batchSize()).isEqualTo(7);
        assertThat(config.toBuilder().maxSteps(3).build().learningRate()).isEqualTo(1e-3);
        assertThatThrownBy(() -> TrainingConfig.builder().set(Setting.BATCH_SIZE, 7.0))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessage("batchSize is 7.0; a value such as 4 is meant");
        assertThatThrownBy(() -> TrainingConfig.builder().batchSize(0).build())
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessage("batch size is 0; it must be at least 1");
        assertThatThrownBy(
                        () -> TrainingConfig.builder().learningRate(Double.NaN).build())
                .hasMessage("learning rate is NaN; it must be more than 0");
    }
}
