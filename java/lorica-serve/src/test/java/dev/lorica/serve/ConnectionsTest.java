package dev.lorica.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ConnectionsTest {
    private static InetSocketAddress at(String host, int port) throws Exception {
        return new InetSocketAddress(InetAddress.getByName(host), port);
    }

    @Test
    void whatLinuxListsAsEstablishedIsOpen(@TempDir Path dir) throws Exception {
        assumeThat(ByteOrder.nativeOrder()).isEqualTo(ByteOrder.LITTLE_ENDIAN);
        Path four = Files.writeString(
                dir.resolve("tcp"),
                """
                  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
                   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
                   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1
                   2: 0100007F:1F90 0100007F:C351 08 00000000:00000000 00:00000000 00000000     0        0 3 1
                """);
        Path six = Files.writeString(
                dir.resolve("tcp6"),
                """
                  sl  local_address                         remote_address                        st
                   0: 0000000000000000FFFF00000100007F:1F91 0000000000000000FFFF00000200007F:C350 01 0
                   1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C350 01 0
                """);
        Connections connections = new Connections(List.of(four, six, dir.resolve("none")));
        assertThat(connections.isOpen(at("127.0.0.1", 8080), at("127.0.0.1", 50000)))
                .isTrue();
        assertThat(connections.isOpen(at("127.0.0.1", 8080), at("127.0.0.1", 50001)))
                .as("the other end is closed")
                .isFalse();
        assertThat(connections.isOpen(at("127.0.0.1", 8080), at("127.0.0.1", 50002)))
                .isFalse();
        assertThat(connections.isOpen(at("127.0.0.1", 8081), at("127.0.0.2", 50000)))
                .as("of IPv4 on a socket of IPv6")
                .isTrue();
        assertThat(connections.isOpen(at("::1", 8080), at("::1", 50000))).isTrue();
    }
}
