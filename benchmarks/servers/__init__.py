"""The servers under load; each is a program that prints the port it listens on."""
