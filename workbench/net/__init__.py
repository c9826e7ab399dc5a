"""Networks outside the machine: where a network controller's cable ends (see `port`, `spec`)."""
