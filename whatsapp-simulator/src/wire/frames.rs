//! Bytes into frames: an intro that says which protocol this is, then length-prefixed frames.

use bytes::BytesMut;
use wacore_binary::consts::WA_CONN_HEADER;
use wacore_noise::framing::FrameDecoder;

/// Frames before the handshake is through are small; nobody unknown gets to fill the memory.
const MAX_HANDSHAKE_FRAME: usize = 64 * 1024;

/// What precedes edge routing information: `ED 00 01`, its length in three bytes, and the information.
const EDGE_ROUTING: [u8; 4] = *b"ED\x00\x01";
const EDGE_ROUTING_HEAD: usize = 7;

/// What came cannot be frames of this protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection does not start with WA and a known version")]
    Intro,
    #[error("a frame or routing information before the end of the handshake is too long")]
    TooLong,
}

/// Puts a client's bytes together into frames.
pub(crate) struct Frames {
    intro: Option<Vec<u8>>,
    decoder: FrameDecoder,
    trusted: bool,
    /// The length of the frame that is arriving, as far as it is known.
    head: Vec<u8>,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { intro: Some(Vec::new()), decoder: FrameDecoder::new(), trusted: false, head: Vec::new() }
    }

    /// The handshake is through: frames may have any length.
    pub(crate) fn trust(&mut self) {
        self.trusted = true;
    }

    pub(crate) fn feed(&mut self, data: &[u8]) -> Result<(), FrameError> {
        if let Some(mut intro) = self.intro.take() {
            intro.extend_from_slice(data);
            return match strip_intro(&intro)? {
                Some(start) => self.feed_frames(&intro[start..]),
                None => {
                    self.intro = Some(intro);
                    Ok(())
                }
            };
        }
        self.feed_frames(data)
    }

    fn feed_frames(&mut self, data: &[u8]) -> Result<(), FrameError> {
        if !self.trusted {
            if self.decoder.buffered_len() == 0 {
                self.head.clear();
            }
            let missing = 3_usize.saturating_sub(self.head.len()).min(data.len());
            self.head.extend_from_slice(&data[..missing]);
            let announced = match self.head.as_slice() {
                [a, b, c, ..] => usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
                _ => 0,
            };
            if announced > MAX_HANDSHAKE_FRAME || self.decoder.buffered_len() + data.len() > 2 * MAX_HANDSHAKE_FRAME {
                return Err(FrameError::TooLong);
            }
        }
        self.decoder.feed(data);
        Ok(())
    }

    /// The next frame that is complete.
    pub(crate) fn next(&mut self) -> Option<BytesMut> {
        self.decoder.decode_frame()
    }
}

/// Where the first frame starts; `None` while the intro is incomplete.
fn strip_intro(data: &[u8]) -> Result<Option<usize>, FrameError> {
    let mut start = 0;
    if data.first() == Some(&EDGE_ROUTING[0]) {
        let head = &data[..data.len().min(EDGE_ROUTING.len())];
        if head != &EDGE_ROUTING[..head.len()] {
            return Err(FrameError::Intro);
        }
        let Some([.., a, b, c]) = data.get(..EDGE_ROUTING_HEAD) else { return Ok(None) };
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if length > MAX_HANDSHAKE_FRAME {
            return Err(FrameError::TooLong);
        }
        start = EDGE_ROUTING_HEAD + length;
    }
    let Some(header) = data.get(start..) else { return Ok(None) };
    let present = header.len().min(WA_CONN_HEADER.len());
    // The last byte is the version of the token dictionary; the Noise prologue is made of all four.
    if header[..present] != WA_CONN_HEADER[..present] {
        return Err(FrameError::Intro);
    }
    Ok((present == WA_CONN_HEADER.len()).then_some(start + WA_CONN_HEADER.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], payload].concat()
    }

    #[test]
    fn a_connection_that_speaks_something_else_is_refused() {
        for start in [&b"GET / HTTP/1.1"[..], b"WA\x05\x02", b"EDxx", b"\x16\x03\x01"] {
            assert_eq!(Frames::new().feed(start), Err(FrameError::Intro));
        }
    }

    #[test]
    fn before_the_handshake_a_long_frame_is_refused_at_its_announcement() {
        let mut frames = Frames::new();
        frames.feed(&WA_CONN_HEADER).unwrap();
        assert_eq!(frames.feed(&[0xff, 0xff]), Ok(()));
        assert_eq!(frames.feed(&[0xff]), Err(FrameError::TooLong));
        assert_eq!(Frames::new().feed(b"ED\x00\x01\xff\xff\xff"), Err(FrameError::TooLong));
    }

    proptest! {
        #[test]
        fn frames_survive_any_chopping(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            routing in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            chunk in 1_usize..50,
        ) {
            let mut stream = Vec::new();
            if let Some(routing) = routing {
                stream.extend_from_slice(&EDGE_ROUTING);
                stream.extend_from_slice(&framed(&routing));
            }
            stream.extend_from_slice(&WA_CONN_HEADER);
            payloads.iter().for_each(|p| stream.extend_from_slice(&framed(p)));
            let mut frames = Frames::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(chunk) {
                frames.feed(piece).unwrap();
                while let Some(frame) = frames.next() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8), intro: bool, trusted: bool) {
            let mut frames = Frames::new();
            if trusted {
                frames.trust();
            }
            if intro {
                frames.feed(&WA_CONN_HEADER).unwrap();
            }
            for piece in pieces {
                if frames.feed(&piece).is_err() {
                    return Ok(());
                }
                while frames.next().is_some() {}
            }
        }
    }
}
