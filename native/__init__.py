"""What worlds and learners share of compiled code; knows neither."""
