"""The measures: each asks the peers its question and returns figures."""
