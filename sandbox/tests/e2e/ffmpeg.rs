//! Media of all kinds, made by ffmpeg when a test runs.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// Two seconds of silence and two of a tone.
pub const SPEECH: &str = r"-f lavfi -i 'aevalsrc=0.5*sin(440*2*PI*t)*gte(t\,2):s=44100:d=4'";

/// Whether ffmpeg is there; a test that needs it ends early where it is not, and says so.
pub fn is_missing() -> bool {
    let runs = |program| Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success());
    if runs("ffmpeg") && runs("ffprobe") {
        return false;
    }
    assert!(std::env::var("CI").is_err(), "CI needs ffmpeg");
    eprintln!("skipped: needs ffmpeg and ffprobe");
    true
}

/// What ffmpeg makes of these arguments, in a file of this name. They are read as a shell reads them.
pub fn made(arguments: &str, name: &str) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    run(folder.path(), &format!("ffmpeg -v error -y {arguments} {name}"));
    std::fs::read(folder.path().join(name)).unwrap()
}

/// What comes out of a command that has these bytes in a file called `in`.
pub fn about(bytes: &[u8], command: &str) -> String {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("in"), bytes).unwrap();
    run(folder.path(), command)
}

/// The digest of each packet of an audio file, as they are and not decoded.
pub fn packets(bytes: &[u8]) -> Vec<String> {
    let said = about(bytes, "ffprobe -v error -show_entries packet=data_hash -show_data_hash md5 -of csv=p=0 in");
    // Some have more lines, and commas, of what is beside them.
    said.lines().map(|line| line.trim_matches(',').to_owned()).filter(|digest| !digest.is_empty()).collect()
}

/// Runs a command line in a folder, which must succeed, and returns what it writes.
pub fn run(folder: &Path, command: &str) -> String {
    let output =
        Command::new("bash").args(["-ceu", command]).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
