//! producer_state
