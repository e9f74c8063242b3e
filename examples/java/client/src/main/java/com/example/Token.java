package com.example;

import java.time.Instant;

record Token(String value, Instant renewAt, Instant endsAt) {
    boolean isGood(Instant until, String refused) {
        return !value.equals(refused) && Instant.now().isBefore(until);
    }
}
