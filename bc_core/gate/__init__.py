"""Whether an update may ship: a policy of promises, judged on two files of predictions, and the report of it."""
