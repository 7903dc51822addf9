//! The order of messages in a chat.

use std::time::Instant;

/// One message of a chat.
pub struct InChat {
    /// Which message it is.
    pub n: usize,
    /// Its place on the recipient's phone.
    pub position: usize,
    /// When it was first handed in.
    pub submitted: Instant,
    /// When the answer that accepted it was there.
    pub accepted: Instant,
}

/// How many pairs have an order, and those that arrived in the other one.
pub fn overtaken(chat: &[InChat]) -> (usize, Vec<(usize, usize)>) {
    let (mut pairs, mut overtaken) = (0, Vec::new());
    for first in chat {
        for second in chat.iter().filter(|second| first.accepted < second.submitted) {
            pairs += 1;
            if second.position < first.position {
                overtaken.push((first.n, second.n));
            }
        }
    }
    (pairs, overtaken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_messages_one_after_the_other_have_an_order() {
        let start = Instant::now();
        let message = |n, position, submitted, accepted| {
            let at = |seconds| start + Duration::from_secs(seconds);
            InChat { n, position, submitted: at(submitted), accepted: at(accepted) }
        };
        let overlapping = [message(0, 1, 0, 5), message(1, 0, 3, 4)];
        assert_eq!(overtaken(&overlapping), (0, vec![]));
        let in_order = [message(0, 0, 0, 1), message(1, 1, 2, 3), message(2, 2, 4, 5)];
        assert_eq!(overtaken(&in_order), (3, vec![]));
        let overtaking = [message(0, 1, 0, 1), message(1, 0, 2, 3)];
        assert_eq!(overtaken(&overtaking), (1, vec![(0, 1)]));
    }
}
