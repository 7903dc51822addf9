//! Keeps the second `cargo run` from compiling for minutes what the first one has compiled.
//!
//! The build script of `waproto` 0.7 writes `whatsapp.local.desc` and tells Cargo to run it again when that file changes.
//! Cargo compares the file's time with the moment before the script's start, so the script counts as changed after its
//! first run, and with it `waproto` and all that is built on it.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// What the script writes, below its `OUT_DIR`.
const WRITTEN: &str = "out/whatsapp.local.desc";
/// The file whose time Cargo takes for the script's start.
const STARTED: &str = "invoked.timestamp";

/// Gives the written file the time of the script's start, in the target folder that holds `program`. The file itself
/// stays as it is. Elsewhere, and where Cargo lays things out in another way, it does nothing.
pub fn mend(program: &Path) {
    let Some(scripts) = program.parent().and_then(|folder| fs::read_dir(folder.join("build")).ok()) else { return };
    for script in scripts.flatten().filter(|script| script.file_name().to_string_lossy().starts_with("waproto-")) {
        // What can't be mended costs time and nothing else.
        let _ = mend_script(&script.path());
    }
}

fn mend_script(folder: &Path) -> io::Result<()> {
    let (started, written) = (fs::metadata(folder.join(STARTED))?.modified()?, folder.join(WRITTEN));
    if fs::metadata(&written)?.modified()? > started {
        File::options().write(true).open(written)?.set_modified(started)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn only_what_is_newer_than_its_script_is_mended() {
        let target = tempfile::tempdir().unwrap();
        let program = target.path().join("sandbox");
        mend(&program);
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let written = |name: &str, time: SystemTime| {
            let folder = target.path().join("build").join(name);
            fs::create_dir_all(folder.join("out")).unwrap();
            for (file, time) in [(STARTED, started), (WRITTEN, time)] {
                fs::write(folder.join(file), "as it was").unwrap();
                File::options().write(true).open(folder.join(file)).unwrap().set_modified(time).unwrap();
            }
            folder.join(WRITTEN)
        };
        let (before, after) = (started - Duration::from_secs(3), started + Duration::from_secs(3));
        let newer = written("waproto-1", after);
        let older = written("waproto-2", before);
        let another = written("another-1", after);
        fs::create_dir_all(target.path().join("build/waproto-3")).unwrap();
        mend(&program);
        let time = |file: &Path| fs::metadata(file).unwrap().modified().unwrap();
        assert_eq!([time(&newer), time(&older), time(&another)], [started, before, after]);
        assert_eq!(fs::read_to_string(&newer).unwrap(), "as it was");
    }
}
