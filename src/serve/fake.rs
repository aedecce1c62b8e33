//! A query door for tests: DataFusion over tables in memory, and statements that misbehave on purpose.
