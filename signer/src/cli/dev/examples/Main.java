package tr.muhurdar.example;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * usage: java … tr.muhurdar.example.Main INVOICE SEALED
 *
 * <p>environment: MUHURDAR_HOME, the folder of `muhurdar dev`; MUHURDAR_ADDRESS, host:port
 */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        var home = Path.of(environment.getOrDefault("MUHURDAR_HOME", "/tmp/muhurdar"));
        var address = environment.getOrDefault("MUHURDAR_ADDRESS", "127.0.0.1:7443");
        byte[] sealed = FirstSeal.seal(home, address, Files.readAllBytes(Path.of(arguments[0])));
        Files.write(Path.of(arguments[1]), sealed);
    }
}
