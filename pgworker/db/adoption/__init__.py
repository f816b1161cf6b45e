"""The platform's own `clients`: whether pgworker can work with it, and what that changes on it."""
