package tr.muhurdar.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.LocalizedMessage;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;

/** What a status says. */
final class Refusal extends Exception {
    private static final long serialVersionUID = 1;

    // snippet: refusal
    final Code code;
    /** Empty where it is not the service that refused. */
    final String reason;
    final transient Map<String, String> metadata;
    final transient List<String> fields = new ArrayList<>();
    final transient List<String> quota = new ArrayList<>();
    final Duration retryAfter;
    final String turkish;

    /** An item's status; a call's is in its exception. */
    Refusal(com.google.rpc.Status status) {
        super(status.getMessage());
        code = Status.fromCodeValue(status.getCode()).getCode();
        var info = ErrorInfo.getDefaultInstance();
        var retry = RetryInfo.getDefaultInstance();
        var message = LocalizedMessage.getDefaultInstance();
        try {
            for (Any detail : status.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    info = detail.unpack(ErrorInfo.class);
                } else if (detail.is(BadRequest.class)) {
                    detail.unpack(BadRequest.class).getFieldViolationsList().forEach(violation -> fields.add(violation.getField()));
                } else if (detail.is(QuotaFailure.class)) {
                    detail.unpack(QuotaFailure.class).getViolationsList().forEach(violation -> quota.add(violation.getSubject()));
                } else if (detail.is(RetryInfo.class)) {
                    retry = detail.unpack(RetryInfo.class);
                } else if (detail.is(LocalizedMessage.class)) {
                    message = detail.unpack(LocalizedMessage.class);
                }
            }
        } catch (InvalidProtocolBufferException e) {
            throw new IllegalStateException("a detail that is not what it says", e);
        }
        boolean ours = info.getDomain().equals("muhurdar");
        reason = ours ? info.getReason() : "";
        metadata = ours ? info.getMetadataMap() : Map.of();
        retryAfter = Duration.ofSeconds(retry.getRetryDelay().getSeconds(), retry.getRetryDelay().getNanos());
        turkish = message.getLocale().equals("tr") ? message.getMessage() : "";
    }

    /** A call's. */
    static Refusal of(Throwable thrown) {
        return new Refusal(StatusProto.fromThrowable(thrown));
    }
    // end snippet

    // snippet: again
    /**
     * How long to wait before the request is sent again, and negative where it may not be: no sooner than the service says, later from
     * try to try, and never at the same moment as everybody else. The request has an idempotency key, the same at each try.
     */
    long again(int attempt) {
        boolean may = code == Code.UNAVAILABLE // also where nobody answered
                || List.of("QUOTA", "OVERLOADED", "DEADLINE").contains(reason)
                || reason.equals("INTERNAL") && attempt == 0;
        if (!may) {
            return -1; // RESOURCE_EXHAUSTED without a reason among them: it is this side's own limit
        }
        long pause = Math.max(retryAfter.toMillis() + 1, Math.min(100L << Math.min(attempt, 5), 3_000));
        return pause + ThreadLocalRandom.current().nextLong(pause / 2 + 1);
    }
    // end snippet

    @Override
    public String toString() {
        return code + " " + reason + ": " + getMessage();
    }
}
