//! What the head of an MP4 or 3GP file says: which tracks it has, how long it plays, how large its picture is, and where
//! its cover is (ISO/IEC 14496-12; the cover as iTunes writes it).
//!
//! The file is walked through once, from its beginning to its end, and a few bytes of each box are read: a box that says
//! nothing of interest costs a jump. So whatever a file says of itself, it is read at most once.

use std::io::{self, Read, Seek, SeekFrom};

/// How deep boxes are looked into. What is of interest lies five boxes deep.
const DEPTH: usize = 8;
/// How many tracks are told apart.
const MAX_TRACKS: usize = 64;

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movie {
    /// In pixels, as it is to be shown.
    pub width: Option<u32>,
    /// In pixels, as it is to be shown.
    pub height: Option<u32>,
    /// How long it plays.
    pub seconds: Option<u32>,
    /// Whether it has a track of moving pictures.
    pub has_video: bool,
    /// Whether it has a track of audio.
    pub has_audio: bool,
    /// Where a JPEG or PNG picture of it stands, and how many bytes it has.
    pub cover: Option<(u64, u64)>,
}

/// What is said of one track.
#[derive(Default)]
struct Track {
    id: u32,
    /// Its kind: `vide`, `soun` and others.
    handler: [u8; 4],
    /// How it is encoded.
    codec: [u8; 4],
    size: (u32, u32),
    /// Ticks per second.
    timescale: u32,
    /// How long a sample of a fragment lasts, unless the fragment says it.
    sample: u32,
    /// From when until when its fragments play, in ticks.
    fragments: Option<(u64, u64)>,
}

#[derive(Default)]
struct Walk {
    tracks: Vec<Track>,
    /// Of the whole: ticks per second, and how many ticks it plays.
    timescale: u32,
    length: Option<u64>,
    /// The same, where it comes in fragments.
    fragmented: Option<u64>,
    cover: Option<(u64, u64)>,
    /// The track that the present fragment belongs to, and how long its samples last.
    current: Option<(usize, u32)>,
}

/// Reads what a file says of itself, as far as it can be read.
pub fn read(file: &mut (impl Read + Seek)) -> Movie {
    let mut walk = Walk::default();
    if let Ok(end) = file.seek(SeekFrom::End(0)) {
        // What breaks off may have said enough by then.
        let _ = walk.boxes(file, 0, end, DEPTH);
    }
    walk.movie()
}

impl Walk {
    fn boxes(&mut self, file: &mut (impl Read + Seek), mut at: u64, end: u64, depth: usize) -> io::Result<()> {
        while at + 8 <= end {
            file.seek(SeekFrom::Start(at))?;
            let (size, name) = (number(file)?, bytes::<4>(file)?);
            let (size, head) = match size {
                0 => (end - at, 8),
                1 => (long(file)?, 16),
                size => (size.into(), 8),
            };
            let next = at.checked_add(size).filter(|next| *next <= end && size >= head).ok_or_else(broken)?;
            self.look(file, &name, at + head, next, depth)?;
            at = next;
        }
        Ok(())
    }

    fn look(
        &mut self,
        file: &mut (impl Read + Seek),
        name: &[u8; 4],
        at: u64,
        end: u64,
        depth: usize,
    ) -> io::Result<()> {
        match name {
            b"trak" if self.tracks.len() < MAX_TRACKS => self.tracks.push(Track::default()),
            b"trak" => return Ok(()),
            b"traf" => self.current = None,
            _ => {}
        }
        match name {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"mvex" | b"moof" | b"traf" | b"udta" | b"ilst"
            | b"covr" => self.boxes(file, at, end, depth.checked_sub(1).ok_or_else(broken)?),
            // It has a version and flags, as the boxes below have.
            b"meta" => self.boxes(file, at + 4, end, depth.checked_sub(1).ok_or_else(broken)?),
            b"mvhd" => {
                let is_long = times(file)?;
                self.timescale = number(file)?;
                self.length = length(file, is_long)?;
                Ok(())
            }
            b"mehd" => {
                let is_long = bytes::<4>(file)?[0] == 1;
                self.fragmented = length(file, is_long)?;
                Ok(())
            }
            b"trex" => {
                skip(file, 4)?;
                let id = number(file)?;
                skip(file, 4)?;
                let sample = number(file)?;
                self.tracks.iter_mut().filter(|track| track.id == id).for_each(|track| track.sample = sample);
                Ok(())
            }
            b"tfhd" => self.fragment(file),
            b"tfdt" => {
                let is_long = bytes::<4>(file)?[0] == 1;
                let base = if is_long { long(file)? } else { number(file)?.into() };
                if let Some(track) = self.current.and_then(|(index, _)| self.tracks.get_mut(index)) {
                    let (from, until) = track.fragments.unwrap_or((base, base));
                    track.fragments = Some((from.min(base), until.max(base)));
                }
                Ok(())
            }
            b"trun" => self.run(file, end),
            b"data" => {
                // The type of the value, and its locale: 13 is JPEG, 14 is PNG.
                let kind = number(file)?;
                if matches!(kind, 13 | 14) && end > at + 8 && self.cover.is_none() {
                    self.cover = Some((at + 8, end - at - 8));
                }
                Ok(())
            }
            _ => match self.tracks.last_mut() {
                Some(track) => track.look(file, name, end),
                None => Ok(()),
            },
        }
    }

    /// The head of what a fragment has of a track.
    fn fragment(&mut self, file: &mut (impl Read + Seek)) -> io::Result<()> {
        let (flags, id) = (number(file)?, number(file)?);
        let index = self.tracks.iter().position(|track| track.id == id);
        // The place of its data, and the description of its samples.
        skip(file, if flags & 1 > 0 { 8 } else { 0 } + if flags & 2 > 0 { 4 } else { 0 })?;
        let own = if flags & 8 > 0 { Some(number(file)?) } else { None };
        self.current = index.map(|index| (index, own.unwrap_or(self.tracks[index].sample)));
        Ok(())
    }

    /// Samples of a fragment, one after the other.
    fn run(&mut self, file: &mut (impl Read + Seek), end: u64) -> io::Result<()> {
        let (flags, count) = (number(file)?, number(file)?);
        let Some((index, sample)) = self.current else { return Ok(()) };
        let mut ticks = u64::from(count) * u64::from(sample);
        if flags & 0x100 > 0 {
            skip(file, [1, 4].iter().filter(|flag| flags & *flag > 0).count() as i64 * 4)?;
            // What stands beside the length of each sample.
            let beside = [0x200, 0x400, 0x800].iter().filter(|flag| flags & *flag > 0).count() as u64 * 4;
            let fit = end.saturating_sub(file.stream_position()?) / (4 + beside);
            ticks = 0;
            for _ in 0..fit.min(count.into()) {
                ticks += u64::from(number(file)?);
                skip(file, beside as i64)?;
            }
        }
        if let Some(track) = self.tracks.get_mut(index) {
            let (from, until) = track.fragments.unwrap_or_default();
            track.fragments = Some((from, until.saturating_add(ticks)));
        }
        Ok(())
    }

    fn movie(self) -> Movie {
        let video = self.tracks.iter().find(|track| track.is_video());
        let size = video.map(|track| track.size).filter(|(width, height)| *width > 0 && *height > 0);
        let fragments = self.tracks.iter().filter_map(|track| {
            let (from, until) = track.fragments?;
            seconds(until.saturating_sub(from), track.timescale)
        });
        let whole = self.length.filter(|length| *length > 0).or(self.fragmented);
        let whole = whole.and_then(|length| seconds(length, self.timescale));
        Movie {
            width: size.map(|(width, _)| width),
            height: size.map(|(_, height)| height),
            seconds: fragments.max().max(whole),
            has_video: video.is_some(),
            has_audio: self.tracks.iter().any(|track| &track.handler == b"soun"),
            cover: self.cover,
        }
    }
}

impl Track {
    fn look(&mut self, file: &mut (impl Read + Seek), name: &[u8; 4], end: u64) -> io::Result<()> {
        match name {
            b"tkhd" => {
                times(file)?;
                self.id = number(file)?;
                // The last fields: how the picture is turned, and its width and height with 16 bits behind the point.
                file.seek(SeekFrom::Start(end.saturating_sub(44)))?;
                let mut matrix = [0; 9];
                for cell in &mut matrix {
                    *cell = number(file)?;
                }
                let pixels = |side: u32| side.saturating_add(1 << 15) >> 16;
                let (width, height) = (pixels(number(file)?), pixels(number(file)?));
                // By a quarter: what was across goes down.
                let sideways = matrix[0] == 0 && matrix[4] == 0 && matrix[1] != 0 && matrix[3] != 0;
                self.size = if sideways { (height, width) } else { (width, height) };
            }
            b"mdhd" => {
                times(file)?;
                self.timescale = number(file)?;
            }
            // There are others, of descriptions of the file, which stand elsewhere.
            b"hdlr" if self.handler == [0; 4] => {
                skip(file, 8)?;
                self.handler = bytes(file)?;
            }
            b"stsd" => {
                skip(file, 12)?;
                self.codec = bytes(file)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether it holds moving pictures: a cover, or the pictures of chapters, are stills.
    fn is_video(&self) -> bool {
        let is_still = [b"jpeg", b"mjpa", b"mjpb", b"png ", b"text"].contains(&&self.codec);
        // What does not say what it is has a picture if it has a size.
        let is_seen = &self.handler == b"vide" || (self.handler == [0; 4] && self.size != (0, 0));
        is_seen && !is_still
    }
}

/// Whole seconds: to the nearest, and one at least of what plays at all.
fn seconds(ticks: u64, timescale: u32) -> Option<u32> {
    let scale = u128::from(timescale);
    let nearest = (2 * u128::from(ticks) + scale.saturating_sub(1)).checked_div(2 * scale)?;
    u32::try_from(nearest).ok().map(|seconds| seconds.max(1)).filter(|_| ticks > 0)
}

/// Passes over a version and two times, and says whether they have 64 bits.
fn times(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let is_long = bytes::<4>(file)?[0] == 1;
    skip(file, if is_long { 16 } else { 8 })?;
    Ok(is_long)
}

/// A number of ticks; nothing where it is not known.
fn length(file: &mut impl Read, is_long: bool) -> io::Result<Option<u64>> {
    Ok(if is_long {
        Some(long(file)?).filter(|length| *length != u64::MAX)
    } else {
        Some(number(file)?).filter(|length| *length != u32::MAX).map(Into::into)
    })
}

fn skip(file: &mut impl Seek, bytes: i64) -> io::Result<()> {
    if bytes > 0 {
        file.seek(SeekFrom::Current(bytes))?;
    }
    Ok(())
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(file: &mut impl Read) -> io::Result<u32> {
    bytes(file).map(u32::from_be_bytes)
}

fn long(file: &mut impl Read) -> io::Result<u64> {
    bytes(file).map(u64::from_be_bytes)
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
pub mod tests;
