package tr.muhurdar.example;

// snippet: first-seal
import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import tr.muhurdar.seal.v1.SealRequest;
import tr.muhurdar.seal.v1.SealResponse;
import tr.muhurdar.seal.v1.SealServiceGrpc;

final class FirstSeal {
    static byte[] seal(Path home, String address, byte[] invoice) throws IOException, GeneralSecurityException {
        var credentials = TlsChannelCredentials.newBuilder()
                .trustManager(home.resolve("ca.crt").toFile())
                .keyManager(home.resolve("clients/branch-1.crt").toFile(), home.resolve("clients/branch-1.key").toFile())
                .build();
        // Without this size what is larger than 4 MiB is lost on its way back, after it was sealed.
        ManagedChannel channel = Grpc.newChannelBuilder(address, credentials).maxInboundMessageSize(32 << 20).build();
        try {
            var request = SealRequest.newBuilder()
                    .setTaxpayer("1000000000")
                    .setDocument(ByteString.copyFrom(invoice))
                    .setIdempotencyKey(UUID.randomUUID().toString())
                    .build();
            SealResponse response = SealServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS).seal(request);
            byte[] sealed = response.getSealedDocument().toByteArray();
            byte[] digest = response.getResult().getSealedDocumentSha256().toByteArray();
            if (!MessageDigest.isEqual(MessageDigest.getInstance("SHA-256").digest(sealed), digest)) {
                throw new IOException("what came is not what was sealed");
            }
            return sealed;
        } finally {
            channel.shutdown();
        }
    }

    private FirstSeal() {}
}
// end snippet
