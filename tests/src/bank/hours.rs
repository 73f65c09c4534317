//! When the bank is open: tellers begin transfers then, and it is closed once the last one has ended its own.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    is_open: bool,
    is_over: bool,
    /// Tellers that are in a transfer.
    busy: usize,
}

/// Shared by tellers and whoever opens and closes.
#[derive(Default)]
pub(super) struct Hours {
    state: Mutex<State>,
    changed: Condvar,
}

/// A transfer that is under way.
pub(super) struct Business<'a>(&'a Hours);

impl Hours {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the bank is open; none once it is closed for good.
    pub(super) fn begin(&self) -> Option<Business<'_>> {
        let waits = |state: &mut State| !state.is_open && !state.is_over;
        let state = self.changed.wait_while(self.state(), waits);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return None;
        }
        state.busy += 1;
        Some(Business(self))
    }

    pub(super) fn open(&self) {
        self.state().is_open = true;
        self.changed.notify_all();
    }

    /// Waits until no transfer is under way.
    pub(super) fn close(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        state.is_open = false;
        while state.busy > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "{} tellers do not end within {patience:?}",
                    state.busy
                ));
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// The tellers go home.
    pub(super) fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }
}

impl Drop for Business<'_> {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
        self.0.changed.notify_all();
    }
}
