//! Opus: its header in the containers that carry it, and writing it to Ogg (RFC 6716, RFC 7845).

use std::io::{self, Write};

use ogg::writing::{PacketWriteEndInfo, PacketWriter};

/// Opus counts in samples of 48 kHz, whatever was recorded.
pub const RATE: u32 = 48_000;
/// The most samples of a packet: 120 ms.
pub const MAX_PACKET: u64 = 5_760;
/// How much stands on a page of Ogg, in samples: a second.
const PAGE: u64 = RATE as u64;
/// The number of the stream: there is one.
const SERIAL: u32 = 1;

/// What an Opus stream says before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many samples at the beginning are not to be heard.
    pub skip: u16,
    /// At which rate it was recorded, in Hz; 0 if that is not known.
    pub recorded: u32,
    /// By how much it is to be made louder, in 1/256 dB.
    pub gain: i16,
}

impl Head {
    /// Reads it, if it is that of one or two channels: packets of both can be played as one channel, which RFC 7845 (5.1)
    /// leaves to the header, and packets of more can not.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"OpusHead")?;
        let (version, channels, rest) = (*bytes.first()?, *bytes.get(1)?, bytes.get(2..11)?);
        let (skip, recorded, gain) = ([rest[0], rest[1]], [rest[2], rest[3], rest[4], rest[5]], [rest[6], rest[7]]);
        // One stream, if the channels are mapped.
        if !(1..=2).contains(&channels) || (rest[8] != 0 && bytes.get(11) != Some(&1)) {
            return None;
        }
        Some(match version {
            // As it stands in MP4 (Encapsulation of Opus in ISO Base Media File Format, 4.3.2).
            0 => Self {
                skip: u16::from_be_bytes(skip),
                recorded: u32::from_be_bytes(recorded),
                gain: i16::from_be_bytes(gain),
            },
            _ => Self {
                skip: u16::from_le_bytes(skip),
                recorded: u32::from_le_bytes(recorded),
                gain: i16::from_le_bytes(gain),
            },
        })
    }

    /// The same for one channel, as it stands in Ogg.
    fn mono(&self) -> Vec<u8> {
        let (skip, recorded, gain) = (self.skip.to_le_bytes(), self.recorded.to_le_bytes(), self.gain.to_le_bytes());
        [b"OpusHead\x01\x01", &skip[..], &recorded, &gain, &[0]].concat()
    }
}

/// How many samples a packet holds, if it is one (RFC 6716, 3.1 and 3.2).
pub fn samples(packet: &[u8]) -> Option<u64> {
    let first = *packet.first()?;
    let frame = match first >> 3 {
        config @ 0..12 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        config @ 12..16 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|samples| (1..=MAX_PACKET).contains(samples))
}

/// Writes packets to Ogg, as one channel.
pub struct Writer<W: Write> {
    ogg: PacketWriter<'static, W>,
    /// The last packet: only when no other follows it is known to be the last.
    held: Option<Vec<u8>>,
    /// How many samples there are, with those that are not to be heard.
    total: u64,
    /// Where the present page began.
    page: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(to: W, head: &Head) -> io::Result<Self> {
        let mut ogg = PacketWriter::new(to);
        ogg.write_packet(head.mono(), SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        let vendor = b"whatsapp-service";
        let tags = [b"OpusTags", &(vendor.len() as u32).to_le_bytes()[..], vendor, &[0; 4]].concat();
        ogg.write_packet(tags, SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        Ok(Self { ogg, held: None, total: 0, page: 0 })
    }

    /// Adds a packet of so many samples.
    pub fn write(&mut self, packet: Vec<u8>, samples: u64) -> io::Result<()> {
        if let Some(before) = self.held.replace(packet) {
            let is_full = self.total - self.page >= PAGE;
            let end = if is_full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.ogg.write_packet(before, SERIAL, end, self.total)?;
            if is_full {
                self.page = self.total;
            }
        }
        self.total += samples;
        Ok(())
    }

    /// Ends the stream at so many samples, with those that are not to be heard at its beginning.
    pub fn finish(mut self, end: u64) -> io::Result<()> {
        if let Some(last) = self.held.take() {
            self.ogg.write_packet(last, SERIAL, PacketWriteEndInfo::EndStream, end)?;
        }
        self.ogg.inner_mut().flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_in_both_orders() {
        let head = Head { skip: 312, recorded: 44_100, gain: -256 };
        assert_eq!(Head::read(&head.mono()), Some(head));
        assert_eq!(Head::read(b"OpusHead\0\x02\x01\x38\0\0\xac\x44\xff\0\0"), Some(head));
        // Two channels that are mapped, in one stream.
        assert_eq!(Head::read(b"OpusHead\x01\x02\x38\x01\x44\xac\0\0\0\xff\x01\x01\x01\0\x01"), Some(head));
        for other in [
            &b"OpusHead\x01\x06\x38\x01\x44\xac\0\0\0\xff\x01\x04\x02\0\x04\x01\x02\x03\x05"[..],
            b"OpusHead\x01\x02\x38\x01\x44\xac\0\0\0\xff\x01\x02\0\0\x01",
            b"OpusHead\x01\x01",
            b"OpusTags",
        ] {
            assert_eq!(Head::read(other), None);
        }
    }

    #[test]
    fn packets_tell_how_long_they_are() {
        for (packet, expected) in [
            (&[0x08_u8][..], Some(960)),
            (&[0x78], Some(960)),
            (&[0xfc], Some(960)),
            (&[0x19], Some(5_760)),
            (&[0x83, 3], Some(360)),
            (&[0xfb, 48], None),
            (&[0x83, 0], None),
            (&[0x83], None),
            (&[], None),
        ] {
            assert_eq!(samples(packet), expected, "{packet:x?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read(bytes: Vec<u8>) {
            let _ = (samples(&bytes), Head::read(&bytes), Head::read(&[b"OpusHead", &bytes[..]].concat()));
        }
    }
}
