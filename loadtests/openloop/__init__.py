"""An open-loop load generator: arrivals keep to a schedule, whether or not the service keeps up.

Who waits for an answer before asking again asks less of a service that stalls, and so never sees most of the
stall. Here every arrival has its time, and its latency counts from that time. Start at generator.py;
`python -m loadtests.openloop --help` is the command.
"""
