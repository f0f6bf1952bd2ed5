"""The EvaByte network: its layers, configuration, pass plan and KV rows."""
