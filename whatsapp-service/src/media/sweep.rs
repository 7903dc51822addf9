//! Media that no message needs any more: it is found, and deleted.

use crate::media::{
    part::{PART, blocking},
    room::Room,
    shelf::MediaStore,
};
use std::{collections::HashSet, fs, io, path::Path, sync::atomic::Ordering, time::Duration};

/// After how long without a change such a file is nobody's: bytes that come more slowly are given up much earlier.
pub(crate) const ABANDONED: Duration = Duration::from_secs(3600);

/// A file that nobody holds, and when it was last of use.
pub struct Idle {
    /// Its name.
    pub name: String,
    pub(crate) touched: u64,
}

impl MediaStore {
    /// The files that nobody is about to need. Whether a message needs them, the database says. What was never completed
    /// is cleared away on the way, unless the clock can't say how old it is.
    pub async fn idle(&self, is_steady: bool) -> Vec<Idle> {
        let (folder, room) = (self.folder.clone(), self.room.clone());
        let Ok(names) = blocking(move || names(&folder, &room, is_steady)).await else { return Vec::new() };
        let known = self.lock();
        let idle = names.into_iter().filter_map(|name| match known.files.get(&name) {
            Some(entry) if entry.holders > 0 => None,
            Some(entry) => Some(Idle { touched: entry.touched, name }),
            None => Some(Idle { touched: 0, name }),
        });
        idle.collect()
    }

    /// Removes files that are not among the `needed`, unless they were of use since they were found idle.
    pub async fn discard(&self, idle: Vec<Idle>, needed: &HashSet<String>) {
        let mut gone = Vec::new();
        {
            let mut known = self.lock();
            for Idle { name, touched } in idle {
                if needed.contains(&name) {
                    continue;
                }
                match known.files.get_mut(&name) {
                    Some(entry) if entry.holders > 0 || entry.touched != touched => continue,
                    Some(entry) => entry.on_disk = false,
                    None => {}
                }
                gone.extend(self.path(&name).map(|path| (name, path)));
            }
        }
        let room = self.room.clone();
        let removed = blocking(move || {
            let mut left = 0;
            for (name, path) in gone {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => left += 1,
                    _ => room.gone(&name),
                }
            }
            Ok(left)
        });
        let left = removed.await.unwrap_or(1);
        // The next sweep is soon, and finds the same.
        if !self.stuck.swap(left > 0, Ordering::Relaxed) && left > 0 {
            tracing::warn!(files = left, "media that is no longer needed could not be removed");
        }
    }
}

/// The names of the files that are complete. What is not, and was left behind, is removed.
pub(crate) fn names(folder: &Path, room: &Room, is_steady: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match name.split_once('.') {
            None => names.push(name),
            Some((name, PART)) if is_steady && is_abandoned(&entry) && fs::remove_file(entry.path()).is_ok() => {
                room.gone(name)
            }
            Some(_) => {}
        }
    }
    Ok(names)
}

fn is_abandoned(entry: &fs::DirEntry) -> bool {
    let changed = entry.metadata().and_then(|about| about.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > ABANDONED))
}
