//! Locks.

use std::sync::{Mutex, PoisonError};

/// Locks it, also after a panic of somebody who held it.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
