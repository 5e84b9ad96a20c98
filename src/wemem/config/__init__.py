"""The study file: TOML to frozen settings and back."""
