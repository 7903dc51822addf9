//! What counts as one emoji.
//!
//! Unicode's grammar of emoji sequences (UTS #51), with the blocks that emoji come from instead of a list of all of them:
//! an emoji that is new this year counts too, and a sequence that no font can draw does no harm.

/// The longest one, in characters: a family of four with skin tones needs 11.
const MAX_LENGTH: usize = 16;

const JOINER: char = '\u{200D}';
const AS_EMOJI: char = '\u{FE0F}';
const KEYCAP: char = '\u{20E3}';

/// Whether a text is one emoji, and nothing else.
pub fn is_emoji(text: &str) -> bool {
    let characters: Vec<char> = text.chars().take(MAX_LENGTH + 1).collect();
    if characters.len() > MAX_LENGTH {
        return false;
    }
    match characters[..] {
        ['0'..='9' | '#' | '*', KEYCAP] | ['0'..='9' | '#' | '*', AS_EMOJI, KEYCAP] => true,
        [first, second] if is_regional(first) && is_regional(second) => true,
        _ => characters.split(|&character| character == JOINER).all(is_element),
    }
}

/// What stands between two joiners: a picture, and how it is to look.
fn is_element(characters: &[char]) -> bool {
    let Some((&picture, look)) = characters.split_first() else { return false };
    is_picture(picture)
        && match look {
            [] | [AS_EMOJI] => true,
            [tone] if is_tone(*tone) => true,
            // The flag of a part of a country.
            [tags @ .., '\u{E007F}'] => {
                picture == '\u{1F3F4}'
                    && !tags.is_empty()
                    && tags.iter().all(|tag| ('\u{E0030}'..='\u{E007A}').contains(tag))
            }
            _ => false,
        }
}

fn is_regional(character: char) -> bool {
    ('\u{1F1E6}'..='\u{1F1FF}').contains(&character)
}

fn is_tone(character: char) -> bool {
    ('\u{1F3FB}'..='\u{1F3FF}').contains(&character)
}

fn is_picture(character: char) -> bool {
    matches!(character,
        '\u{A9}' | '\u{AE}' | '\u{203C}' | '\u{2049}' | '\u{2122}' | '\u{2139}'
        | '\u{2194}'..='\u{21AA}' | '\u{231A}'..='\u{23FF}' | '\u{24C2}' | '\u{25AA}'..='\u{27BF}'
        | '\u{2934}'..='\u{2935}' | '\u{2B05}'..='\u{2B55}' | '\u{3030}' | '\u{303D}' | '\u{3297}' | '\u{3299}'
        | '\u{1F004}'..='\u{1F1AD}' | '\u{1F201}'..='\u{1F3FA}' | '\u{1F400}'..='\u{1FAFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_is_one_whatever_it_is_made_of() {
        for emoji in [
            // One picture.
            "👍",
            "❤",
            "\u{2764}\u{FE0F}",
            "👍🏽",
            "😂",
            "🫠",
            "\u{A9}\u{FE0F}",
            "\u{203C}\u{FE0F}",
            "⌚",
            "⭐",
            "🆗",
            // Keycaps and flags.
            "1\u{FE0F}\u{20E3}",
            "#\u{20E3}",
            "🇧🇷",
            "\u{1F3F4}\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            // Several, joined: a family, a kiss with two skin tones, a rainbow flag, a shrug.
            "👨\u{200D}👩\u{200D}👧\u{200D}👦",
            "🧑🏻\u{200D}\u{2764}\u{FE0F}\u{200D}💋\u{200D}🧑🏼",
            "\u{1F3F3}\u{FE0F}\u{200D}🌈",
            "🤷🏿\u{200D}\u{2640}\u{FE0F}",
        ] {
            assert!(is_emoji(emoji), "{emoji}");
        }
    }

    #[test]
    fn text_and_several_are_not() {
        for text in [
            "",
            "a",
            "ok",
            "1",
            "👍👍",
            "👍 ",
            " 👍",
            "👍a",
            "é",
            "愛",
            "🇧",
            "🇧🇷🇵",
            "\u{200D}",
            "👍\u{200D}",
            "🏽",
            "\u{FE0F}",
        ] {
            assert!(!is_emoji(text), "{text:?}");
        }
        let endless = ["👨"; 9].join("\u{200D}");
        assert!(!is_emoji(&endless), "it could be as long as a text");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_judged(text in "\\PC{0,20}", tail in "[a-zA-Z0-9 ]{1,5}") {
            if is_emoji(&text) {
                let with_tail = text + &tail;
                prop_assert!(!is_emoji(&with_tail));
            }
        }
    }
}
