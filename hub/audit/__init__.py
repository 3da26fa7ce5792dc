"""The tamper-evident log. Knows neither stream nor commands."""
