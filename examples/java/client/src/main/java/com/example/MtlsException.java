package com.example;

import java.io.IOException;
import org.springframework.core.NestedExceptionUtils;
import org.springframework.web.client.RestClientResponseException;

/** Says in one line what failed, why, and what to do about it. */
class MtlsException extends RuntimeException {
    MtlsException(String what, Throwable cause, String remedy) {
        super(what + ": " + reason(cause) + "; " + remedy, cause);
    }

    /** Returns the one line, also of an exception that Spring has wrapped. */
    static String line(Throwable e) {
        for (var cause = e; cause != null; cause = cause.getCause()) {
            if (cause instanceof MtlsException) return cause.getMessage();
        }
        return reason(NestedExceptionUtils.getMostSpecificCause(e)) + "; check LISTEN and the settings in application.yaml";
    }

    /** Finds what a server or the system said. What Spring says about it is long. */
    private static String reason(Throwable e) {
        for (var cause = e; cause != null; cause = cause.getCause()) {
            if (cause instanceof RestClientResponseException answer)
                return answer.getStatusCode() + " " + answer.getResponseBodyAsString().lines().findFirst().orElse("");   // has the error id
            if (cause instanceof IOException) return cause.toString();
        }
        return String.valueOf(e.getMessage()).replaceAll("\\s+", " ");
    }
}
