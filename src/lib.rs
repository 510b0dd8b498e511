//! pgstream moves PostgreSQL databases between servers and keeps them in step until cutover.

