"""What it takes to watch a sale: Prometheus' configuration, and Grafana's dashboards as code."""
