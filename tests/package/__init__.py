"""The browser client as the npm package `flask-wschat`: its parts and its users."""
