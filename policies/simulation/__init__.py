"""What a policy would do with traffic that was recorded: the same requests, decided by the evaluator that serves, in a
fleet whose load follows from those decisions."""
