//! The bars that phones draw for a voice note.

/// How many bars there are.
pub const BARS: usize = 64;
/// How high the highest is.
const HIGHEST: f32 = 100.0;
/// How much is taken together while it is listened to, in samples.
const BLOCK: usize = 960;
/// What is not heard at all, of 1.
const SILENCE: f32 = 0.000_1;

/// Listens.
#[derive(Default)]
pub struct Waveform {
    blocks: Vec<f32>,
    sum: f32,
    count: usize,
}

impl Waveform {
    /// These samples come next.
    pub fn hear(&mut self, samples: &[f32]) {
        for sample in samples {
            self.sum += sample.abs();
            self.count += 1;
            if self.count == BLOCK {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.blocks.push(self.sum / self.count as f32);
        (self.sum, self.count) = (0.0, 0);
    }

    /// The bars: the loudest has the full height, as WhatsApp's own clients draw it.
    pub fn bars(mut self) -> Vec<u8> {
        // Less than half a block at the end says nothing beside whole ones.
        if self.count > BLOCK / 2 || (self.count > 0 && self.blocks.is_empty()) {
            self.end_block();
        }
        let blocks = &self.blocks;
        let bars: Vec<_> = (0..BARS)
            .map(|bar| {
                let from = bar * blocks.len() / BARS;
                let until = ((bar + 1) * blocks.len() / BARS).max(from + 1).min(blocks.len());
                let part = blocks.get(from..until).unwrap_or_default();
                part.iter().sum::<f32>() / part.len().max(1) as f32
            })
            .collect();
        let loudest = bars.iter().copied().fold(0.0, f32::max);
        let height = |bar: f32| if loudest > SILENCE { (bar / loudest * HIGHEST).round() as u8 } else { 0 };
        bars.into_iter().map(height).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(samples: &[f32]) -> Vec<u8> {
        let mut waveform = Waveform::default();
        samples.chunks(777).for_each(|some| waveform.hear(some));
        waveform.bars()
    }

    #[test]
    fn bars_are_as_high_as_it_is_loud() {
        let second = |loud: f32| (0..48_000).map(move |n| if n % 2 == 0 { loud } else { -loud });
        let samples: Vec<_> = second(0.0).chain(second(0.5)).chain(second(0.25)).chain(second(0.0)).collect();
        let bars = bars(&samples);
        assert_eq!(bars.len(), BARS);
        assert_eq!((bars[5], bars[20], bars[40], bars[60]), (0, 100, 50, 0));
    }

    #[test]
    fn silence_and_the_shortest_note_have_bars_too() {
        assert_eq!(bars(&[]), [0; BARS]);
        assert_eq!(bars(&[0.0; 48_000]), [0; BARS]);
        assert_eq!(bars(&[0.00001; 48_000]), [0; BARS]);
        assert_eq!(bars(&[0.5; 100]), [100; BARS]);
    }
}
