//! Compares what the tables say with each other.
