//! timestamps
