"""What short ways answer, beside what Flask and gevent do."""
