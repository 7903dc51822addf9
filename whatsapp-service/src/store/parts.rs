//! Lists that are read from the disk a part at a time, as their reader takes them. Who reads slowly, or not at all, holds
//! one part in memory and no more, however long the list is, and however large what stands in it; of what may change while
//! it is read, one row.

use crate::store::error::StoreError;

/// How much of a list is in memory at a time, in bytes.
const PART: usize = 64 * 1024;
/// In how many parts a row is given at most: each part reads all of it anew.
const PARTS: usize = 16;

/// Writes one row, with what stands between two before it unless it is the first.
pub type WriteRow<T> = fn(&T, bool) -> Vec<u8>;

/// How far a reader of a list has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of the last row that was given to its end.
    pub row: i64,
    /// Whether no row was given to its end yet.
    is_start: bool,
    /// The number of the next row, and how many bytes of it were given already.
    begun: Option<(i64, usize)>,
}

/// What a reader still takes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// So many rows.
    pub rows: usize,
    /// So many bytes. The first row is given however large it is.
    pub bytes: usize,
}

/// A part of a list.
#[derive(Debug)]
pub struct Part {
    /// The rows, written one after the other.
    pub text: Vec<u8>,
    /// How many ended in it.
    pub rows: usize,
    /// How far the list is read now.
    pub position: Position,
    /// What is left of it.
    pub rest: Rest,
}

/// What is left of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// More, and there is room for it.
    More,
    /// More, and no room.
    NoRoom,
}

impl Position {
    /// The start of a list that begins behind this row.
    pub fn behind(row: i64) -> Self {
        Self { row, is_start: true, begun: None }
    }
}

impl Room {
    /// For all there is.
    pub const ENDLESS: Self = Self { rows: usize::MAX, bytes: usize::MAX };

    /// What is left of it after this part.
    pub fn after(self, part: &Part) -> Self {
        Self { rows: self.rows.saturating_sub(part.rows), bytes: self.bytes.saturating_sub(part.text.len()) }
    }
}

/// Whether rows may change between two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// They never do: a large one is given in several parts, and read anew for each.
    Fixed,
    /// They do: each is given as a whole.
    Changing,
}

/// The next part of a list, whose rows come with their numbers. `write` writes one of them, with what stands between two
/// before it unless it is the first.
pub fn gather<T, E: From<StoreError>>(
    kind: Rows,
    rows: impl Iterator<Item = Result<(i64, T), E>>,
    from: Position,
    room: Room,
    write: impl Fn(&T, bool) -> Vec<u8>,
) -> Result<Part, E> {
    let mut part = Part { text: Vec::new(), rows: 0, position: from, rest: Rest::Nothing };
    for row in rows {
        let (number, row) = row?;
        let Position { is_start, begun, .. } = part.position;
        let given = match begun {
            None => 0,
            Some((begun, given)) if begun == number => given,
            Some(_) => return Err(StoreError::Damaged("what was being read was forgotten meanwhile".into()).into()),
        };
        let text = write(&row, is_start);
        let left = text.get(given..).unwrap_or_default();
        let has_room = part.rows < room.rows && part.text.len().saturating_add(left.len()) <= room.bytes;
        // What was begun goes on to its end.
        if !has_room && !is_start && given == 0 {
            part.rest = Rest::NoRoom;
            break;
        }
        let is_whole = part.text.is_empty() && kind == Rows::Changing;
        if is_whole || left.len() <= PART.saturating_sub(part.text.len()) {
            part.text.extend_from_slice(left);
            part.rows += 1;
            part.position = Position { row: number, is_start: false, begun: None };
            continue;
        }
        part.rest = Rest::More;
        if part.text.is_empty() {
            let length = left.len().min(PART.max(text.len() / PARTS));
            part.text.extend_from_slice(&left[..length]);
            part.position.begun = Some((number, given + length));
        }
        break;
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list of texts, numbered from 1 on, read in parts until it ends or the room does.
    fn read(kind: Rows, texts: &[String], room: Room) -> (String, Vec<usize>, Position, Rest) {
        let (mut all, mut parts, mut position, mut left) = (Vec::new(), Vec::new(), Position::behind(0), room);
        loop {
            let rows = (1..).zip(texts).skip(position.row as usize).map(Ok::<_, StoreError>);
            let write = |text: &&String, is_first: bool| [if is_first { "" } else { "," }, text].concat().into_bytes();
            let part = gather(kind, rows, position, left, write).unwrap();
            (position, left) = (part.position, left.after(&part));
            parts.push(part.text.len());
            all.extend(part.text);
            if part.rest != Rest::More {
                return (String::from_utf8(all).unwrap(), parts, position, part.rest);
            }
        }
    }

    proptest! {
        #[test]
        fn however_long_the_rows_are_the_list_is_whole_and_the_parts_are_small(
            lengths in prop::collection::vec(prop_oneof![0..100_usize, 0..300_000_usize, 1..2_000_000_usize], 0..9),
            rows in 1..15_usize,
            bytes in 1..500_000_usize,
        ) {
            let texts: Vec<String> = lengths.iter().enumerate().map(|(n, &length)| format!("{n:x}").repeat(length)).collect();
            let longest = texts.iter().map(String::len).max().unwrap_or_default();
            let (all, parts, _, rest) = read(Rows::Changing, &texts, Room::ENDLESS);
            prop_assert!(all == texts.join(",") && rest == Rest::Nothing);
            prop_assert!(parts.iter().all(|&part| part <= PART.max(longest + 1)), "{parts:?}");
            let (all, parts, _, rest) = read(Rows::Fixed, &texts, Room::ENDLESS);
            prop_assert!(all == texts.join(",") && rest == Rest::Nothing);
            let largest = PART.max(longest.div_ceil(PARTS));
            prop_assert!(parts.iter().all(|&part| part <= largest), "{parts:?}");

            let (some, parts, position, rest) = read(Rows::Fixed, &texts, Room { rows, bytes });
            let given = position.row as usize;
            prop_assert!(some == texts[..given].join(","), "whole rows, from the start on");
            prop_assert!(parts.iter().all(|&part| part <= largest), "{parts:?}");
            prop_assert!(given <= rows && (some.len() <= bytes || given == 1));
            prop_assert_eq!(rest == Rest::Nothing, given == texts.len());
            let next_fits = texts.get(given).is_some_and(|next| given < rows && some.len() + 1 + next.len() <= bytes);
            prop_assert!(given > 0 || texts.is_empty(), "a page is never empty while there is more");
            prop_assert!(!next_fits, "it ends where it has to and not before");
        }
    }

    #[test]
    fn what_is_forgotten_while_it_is_read_is_no_text() {
        let long = "x".repeat(PART + 1);
        let write = |text: &&str, _| text.as_bytes().to_vec();
        let part = gather(
            Rows::Fixed,
            [Ok::<_, StoreError>((7, long.as_str()))].into_iter(),
            Position::behind(0),
            Room::ENDLESS,
            write,
        )
        .unwrap();
        assert_eq!((part.rows, part.rest), (0, Rest::More));
        let next =
            gather(Rows::Fixed, [Ok::<_, StoreError>((8, "another"))].into_iter(), part.position, Room::ENDLESS, write);
        assert!(next.is_err());
    }
}
