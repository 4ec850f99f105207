"""The golden signals of every hop: latency, traffic, errors, saturation."""

from __future__ import annotations

from functools import partial

from monitoring.panels import (
    BYTES,
    BYTES_PER_S,
    COUNT,
    EVENTS_PER_S,
    OPERATIONS_PER_S,
    REQUESTS_PER_S,
    SECONDS,
    SHARE,
    Json,
    Query,
    Row,
    dashboard,
    lines,
    mean,
    on_the_right,
    quantile,
    quantiles,
    rate,
    verdict,
)

API = 'route=~"/v1/.+"'
DISKS = 'fstype!~"tmpfs|ramfs|squashfs|overlay"'
_panel = partial(lines, width=8)


def system() -> Json:
    """Which hop is slow, fails, or has no room left?"""
    return dashboard(
        "doorbuster-system",
        "Doorbuster: system",
        "Which hop is slow, fails, or has no room left?",
        [],
        [
            _roles(),
            _gateway(),
            _store(),
            _redis(),
            _relay(),
            _broker(),
            _worker(),
            _postgres(),
            _outside(),
            _host(),
        ],
    )


def _roles() -> Row:
    jobs = "gateway|relay|worker|sweeper|redis|rabbitmq|postgres|host"
    return Row(
        "Who is there?",
        [
            verdict(
                "Targets that do not answer",
                "How many of those that Prometheus asks tell it nothing?",
                Query("count(up == 0) or 0 * count(up)"),
                zero="green",
                more="red",
                width=6,
            ),
            verdict(
                "Alerts that page",
                "How many alerts are for somebody to be woken by?",
                Query('count(ALERTS{alertstate="firing", severity="page"}) or 0 * count(up)'),
                zero="green",
                more="red",
                width=6,
            ),
            lines(
                "Processes by role",
                "How many of each answer? A gateway with several workers is one.",
                COUNT,
                Query(f'sum by (job) (up{{job=~"{jobs}"}})', "{{job}}"),
                height=6,
            ),
        ],
    )


def _gateway() -> Row:
    durations = "doorbuster_request_duration_seconds"
    return Row(
        "Gateway",
        [
            _panel(
                "Time to answer, p99",
                "Within what time are 99 % of the requests to each route answered?",
                SECONDS,
                Query(quantile(0.99, durations, by=["method", "route"], labels=API), "{{method}} {{route}}"),
            ),
            _panel(
                "Requests by status",
                "How much is asked, and how is it answered? 5xx is failure, and nothing else is.",
                REQUESTS_PER_S,
                Query(f"sum by (status) ({rate(f'{durations}_count', API)})", "{{status}}"),
                stacked=True,
            ),
            _panel(
                "Share that failed",
                "Of the answers of five minutes, which part was 5xx, and which good but later than 0.25 s?",
                SHARE,
                Query("doorbuster:answers_failed:share5m", "failed"),
                Query("doorbuster:answers_slow:share5m", "slow"),
            ),
            _panel(
                "Requests in progress",
                "How many are being worked on? A process refuses beyond 4,096.",
                COUNT,
                Query("sum by (instance) (doorbuster_requests_in_progress)", "{{instance}}"),
            ),
            _panel(
                "Event loop lag, p99",
                "How much later than it should does each role come round? What holds it up, holds all up.",
                SECONDS,
                Query(quantile(0.99, "doorbuster_event_loop_lag_seconds", by=["role"]), "{{role}}"),
            ),
            _panel(
                "Garbage collection",
                "Which part of its time does each role spend on it?",
                SHARE,
                Query(f"sum by (role) ({rate('doorbuster_gc_pause_seconds_sum')})", "{{role}}"),
            ),
        ],
    )


def _store() -> Row:
    commands = "doorbuster_store_command_duration_seconds"
    return Row(
        "Redis, as the roles see it",
        [
            _panel(
                "Round trip, p99",
                "How long does each script or command take, there and back?",
                SECONDS,
                Query(quantile(0.99, commands, by=["command"]), "{{command}}"),
            ),
            _panel(
                "Commands",
                "Who asks how much of it?",
                OPERATIONS_PER_S,
                Query(f"sum by (role) ({rate(f'{commands}_count')})", "{{role}}"),
                stacked=True,
            ),
            _panel(
                "Failures",
                "How many commands get no answer, and why? `late` is one that was given up.",
                OPERATIONS_PER_S,
                Query(
                    f"sum by (role, reason) ({rate('doorbuster_store_failures_total')})",
                    "{{role}}: {{reason}}",
                ),
                stacked=True,
            ),
            _panel(
                "Written together",
                "How many commands share a round trip, and how many reservations a run of the script? The "
                "more, the nearer to its limits.",
                COUNT,
                Query(mean("doorbuster_store_batch_commands", by=["role"]), "commands, {{role}}"),
                Query(mean("doorbuster_reserve_group_reservations"), "reservations"),
            ),
            _panel(
                "Outbox",
                "Do events leave Redis as fast as they arise?",
                COUNT,
                Query("max(doorbuster_outbox_events)", "events"),
                Query("max(doorbuster_outbox_oldest_seconds)", "age of the oldest"),
                overrides=[on_the_right("age of the oldest", SECONDS)],
            ),
        ],
    )


def _redis() -> Row:
    return Row(
        "Redis, by its exporter",
        [
            _panel(
                "CPU of one core",
                "How much of the one core that it has does it use? At 1, everybody waits.",
                SHARE,
                Query(
                    f"sum by (instance) ({rate('redis_cpu_sys_seconds_total')}"
                    f" + {rate('redis_cpu_user_seconds_total')})",
                    "{{instance}}",
                ),
            ),
            _panel(
                "Memory",
                "How much does it use, and how much may it? Without a limit of its own, the machine's is it.",
                BYTES,
                Query("sum by (instance) (redis_memory_used_bytes)", "used, {{instance}}"),
                Query(
                    "sum by (instance) (redis_memory_max_bytes > 0 or redis_total_system_memory_bytes)",
                    "may use, {{instance}}",
                ),
            ),
            _panel(
                "Connections",
                "How many does it have, and how many does it turn away?",
                COUNT,
                Query("sum by (instance) (redis_connected_clients)", "open, {{instance}}"),
                Query(f"sum({rate('redis_rejected_connections_total')})", "turned away, 1/s"),
                overrides=[on_the_right("turned away, 1/s", OPERATIONS_PER_S)],
            ),
            _panel(
                "Replicas",
                "How many does it have, and for how long has the slowest said nothing?",
                COUNT,
                Query("max(redis_connected_slaves)", "replicas"),
                Query("max(redis_connected_slave_lag_seconds)", "silent for"),
                overrides=[on_the_right("silent for", SECONDS)],
            ),
            _panel(
                "Log on disk",
                "How large is it, and did a write have to wait for the disk?",
                BYTES,
                Query("sum by (instance) (redis_aof_current_size_bytes)", "size, {{instance}}"),
                Query("sum(redis_aof_delayed_fsync)", "delayed in all"),
                overrides=[on_the_right("delayed in all", COUNT)],
            ),
        ],
    )


def _relay() -> Row:
    return Row(
        "Relay",
        [
            _panel(
                "Until the broker has it",
                "How long do confirms take?",
                SECONDS,
                *quantiles("doorbuster_publish_duration_seconds", 50, 99),
            ),
            _panel(
                "Relayed",
                "How many events go to the broker each second, how many fail, and how many at once?",
                EVENTS_PER_S,
                Query(f"sum({rate('doorbuster_relayed_events_total')})", "relayed"),
                Query(f"sum({rate('doorbuster_relay_failures_total')})", "publishes that failed"),
                Query(mean("doorbuster_relay_batch_events"), "at once"),
                overrides=[on_the_right("at once", COUNT)],
            ),
            _panel(
                "Connecting",
                "Do relay and worker find a broker?",
                OPERATIONS_PER_S,
                Query(f"sum by (outcome) ({rate('doorbuster_broker_connections_total')})", "{{outcome}}"),
            ),
        ],
    )


def _broker() -> Row:
    return Row(
        "RabbitMQ",
        [
            _panel(
                "Messages waiting",
                "How much waits for workers, and how much lies there dead?",
                COUNT,
                Query("sum by (queue) (rabbitmq_detailed_queue_messages)", "{{queue}}"),
            ),
            _panel(
                "Messages a second",
                "Does as much leave as comes?",
                EVENTS_PER_S,
                Query(f"sum({rate('rabbitmq_channel_messages_published_total')})", "published"),
                Query(f"sum({rate('rabbitmq_channel_messages_acked_total')})", "acknowledged"),
            ),
            _panel(
                "Alarms",
                "Does it block publishers, for want of memory or disk?",
                COUNT,
                Query("max(rabbitmq_alarms_memory_used_watermark)", "memory"),
                Query("max(rabbitmq_alarms_free_disk_space_watermark)", "disk"),
                max_value=1,
            ),
            _panel(
                "Memory",
                "How much does it use, and from where on does it block?",
                BYTES,
                Query("sum by (instance) (rabbitmq_process_resident_memory_bytes)", "used, {{instance}}"),
                Query("sum by (instance) (rabbitmq_resident_memory_limit_bytes)", "blocks at, {{instance}}"),
            ),
            _panel(
                "Disk left",
                "How much is free, and from where on does it block?",
                BYTES,
                Query("min(rabbitmq_disk_space_available_bytes)", "free"),
                Query("max(rabbitmq_disk_space_available_limit_bytes)", "blocks at"),
            ),
            _panel(
                "Consumers",
                "How many workers take from each queue?",
                COUNT,
                Query("sum by (queue) (rabbitmq_detailed_queue_consumers)", "{{queue}}"),
            ),
        ],
    )


def _worker() -> Row:
    return Row(
        "Worker",
        [
            _panel(
                "Transaction",
                "How long does it take to write a batch into the book?",
                SECONDS,
                *quantiles("doorbuster_settle_duration_seconds", 50, 99),
            ),
            _panel(
                "Settled",
                "How many events reach the book each second, and how many transactions fail?",
                EVENTS_PER_S,
                Query(f"sum({rate('doorbuster_settled_events_total')})", "settled"),
                Query(f"sum({rate('doorbuster_settle_failures_total')})", "transactions that failed"),
            ),
            _panel(
                "Busy",
                "Which part of its time does each worker settle? At 1, another one is needed.",
                SHARE,
                Query(
                    f"sum by (instance) ({rate('doorbuster_settle_duration_seconds_sum')})", "{{instance}}"
                ),
            ),
        ],
    )


def _postgres() -> Row:
    ours = "doorbuster_book_connections"
    return Row(
        "PostgreSQL",
        [
            _panel(
                "Statements besides settling, p99",
                "How long do lists, audits and looks for refunds take?",
                SECONDS,
                Query(
                    quantile(0.99, "doorbuster_book_query_duration_seconds", by=["outcome"]), "{{outcome}}"
                ),
            ),
            _panel(
                "Transactions",
                "How much does it commit, and roll back?",
                OPERATIONS_PER_S,
                Query(f"sum({rate('pg_stat_database_xact_commit')})", "committed"),
                Query(f"sum({rate('pg_stat_database_xact_rollback')})", "rolled back"),
                Query(f"sum({rate('pg_stat_database_deadlocks')})", "deadlocks"),
            ),
            _panel(
                "Connections",
                "How many are open, by state, and how many may be?",
                COUNT,
                Query("sum by (state) (pg_stat_activity_count)", "{{state}}"),
                Query("max(pg_settings_max_connections)", "allowed"),
            ),
            _panel(
                "Connections of ours",
                "Does a role wait for a connection of its own pool?",
                COUNT,
                Query(f"sum by (role, state) ({ours})", "{{role}}: {{state}}"),
            ),
            _panel(
                "Size",
                "How large is each database?",
                BYTES,
                Query("sum by (datname) (pg_database_size_bytes)", "{{datname}}"),
            ),
            _panel(
                "Standbys behind",
                "How much of the log does each standby lack?",
                BYTES,
                Query(
                    "max by (application_name) (pg_stat_replication_pg_wal_lsn_diff)", "{{application_name}}"
                ),
            ),
        ],
    )


def _outside() -> Row:
    return Row(
        "Payment provider and notifier",
        [
            _panel(
                "Time to answer, p99",
                "How long do the provider and the merchant's systems take?",
                SECONDS,
                Query(quantile(0.99, "doorbuster_refund_duration_seconds"), "refund"),
                Query(quantile(0.99, "doorbuster_notification_duration_seconds"), "notification"),
            ),
            _panel(
                "Notices of the provider",
                "What does it tell us, and do we believe it?",
                EVENTS_PER_S,
                Query(
                    f"sum by (type, outcome) ({rate('doorbuster_payment_notices_total')})",
                    "{{type}}: {{outcome}}",
                ),
                stacked=True,
            ),
            _panel(
                "What we ask of them",
                "Are refunds and notifications taken?",
                EVENTS_PER_S,
                Query(f"sum by (outcome) ({rate('doorbuster_refund_requests_total')})", "refund {{outcome}}"),
                Query(
                    f"sum by (outcome) ({rate('doorbuster_notifications_total')})", "notification {{outcome}}"
                ),
                stacked=True,
            ),
        ],
    )


def _host() -> Row:
    network, working = 'device!="lo"', 'mode!="idle"'
    received, sent = "node_network_receive_bytes_total", "node_network_transmit_bytes_total"
    return Row(
        "Hosts",
        [
            _panel(
                "CPU",
                "Which part of all cores works, and on what?",
                SHARE,
                Query(
                    f"avg by (mode) ({rate('node_cpu_seconds_total', working)})",
                    "{{mode}}",
                ),
                stacked=True,
                max_value=1,
            ),
            _panel(
                "Memory",
                "How much is left for those who ask for more?",
                BYTES,
                Query("sum by (instance) (node_memory_MemAvailable_bytes)", "available, {{instance}}"),
                Query("sum by (instance) (node_memory_MemTotal_bytes)", "in all, {{instance}}"),
            ),
            _panel(
                "Disk left",
                "Which part of each disk is free? A Redis whose disk is full sells nothing.",
                SHARE,
                Query(
                    f"min by (instance, mountpoint) (node_filesystem_avail_bytes{{{DISKS}}}"
                    f" / node_filesystem_size_bytes{{{DISKS}}})",
                    "{{instance}} {{mountpoint}}",
                ),
                max_value=1,
            ),
            _panel(
                "Disk busy",
                "Which part of the time does each disk work?",
                SHARE,
                Query(f"max by (device) ({rate('node_disk_io_time_seconds_total')})", "{{device}}"),
            ),
            _panel(
                "Network",
                "How much comes and goes?",
                BYTES_PER_S,
                Query(f"sum({rate(received, network)})", "received"),
                Query(f"sum({rate(sent, network)})", "sent"),
            ),
        ],
    )
