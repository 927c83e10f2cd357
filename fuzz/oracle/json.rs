//! JSON by its grammar (RFC 8259), character by character, keeping what a library's reader would hide: how a number is
//! written, names that come twice, text that is none.

/// What was read. What no message needs to be told apart by is not kept.
#[derive(Debug)]
pub(super) enum Json {
    /// As it is written.
    Number(String),
    Text(Text),
    /// In the order they stand in, also those that come twice.
    Object(Vec<(Text, Json)>),
    Other,
}

/// A string without its escapes; `None` if it has half a surrogate pair, which is no text.
pub(super) type Text = Option<String>;

/// `None` if the characters are no JSON text.
pub(super) fn read(text: &str) -> Option<Json> {
    let mut reader = Reader {
        left: text.chars().rev().collect(),
    };
    let json = reader.value()?;
    reader.space();
    reader.left.is_empty().then_some(json)
}

/// The characters that are left, the next one last.
struct Reader {
    left: Vec<char>,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.left.last().copied()
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        self.peek().filter(|c| wanted(*c))?;
        self.left.pop()
    }

    fn space(&mut self) {
        while self.take(|c| " \t\n\r".contains(c)).is_some() {}
    }

    /// This character, after any space.
    fn sign(&mut self, sign: char) -> Option<char> {
        self.space();
        self.take(|c| c == sign)
    }

    fn value(&mut self) -> Option<Json> {
        self.space();
        match self.peek()? {
            '{' => self.object(),
            '[' => self.array(),
            '"' => self.string().map(Json::Text),
            '-' | '0'..='9' => self.number().map(Json::Number),
            _ => ["null", "true", "false"]
                .into_iter()
                .any(|word| self.word(word))
                .then_some(Json::Other),
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let is_next = word
            .chars()
            .rev()
            .eq(self.left[self.left.len().saturating_sub(word.len())..]
                .iter()
                .copied());
        if is_next {
            self.left.truncate(self.left.len() - word.len());
        }
        is_next
    }

    fn object(&mut self) -> Option<Json> {
        self.sign('{')?;
        let mut fields = Vec::new();
        if self.sign('}').is_some() {
            return Some(Json::Object(fields));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.sign(':')?;
            fields.push((name, self.value()?));
            if self.sign(',').is_none() {
                self.sign('}')?;
                return Some(Json::Object(fields));
            }
        }
    }

    fn array(&mut self) -> Option<Json> {
        self.sign('[')?;
        if self.sign(']').is_some() {
            return Some(Json::Other);
        }
        loop {
            self.value()?;
            if self.sign(',').is_none() {
                self.sign(']')?;
                return Some(Json::Other);
            }
        }
    }

    fn number(&mut self) -> Option<String> {
        let mut written = String::new();
        written.extend(self.take(|c| c == '-'));
        match self.take(|c| c == '0') {
            Some(zero) => written.push(zero),
            None => written.push_str(&self.digits()?),
        }
        if let Some(point) = self.take(|c| c == '.') {
            written.push(point);
            written.push_str(&self.digits()?);
        }
        if let Some(e) = self.take(|c| "eE".contains(c)) {
            written.push(e);
            written.extend(self.take(|c| "+-".contains(c)));
            written.push_str(&self.digits()?);
        }
        Some(written)
    }

    /// One at least.
    fn digits(&mut self) -> Option<String> {
        let mut digits = String::new();
        while let Some(digit) = self.take(|c| c.is_ascii_digit()) {
            digits.push(digit);
        }
        (!digits.is_empty()).then_some(digits)
    }

    fn string(&mut self) -> Option<Text> {
        self.take(|c| c == '"')?;
        // In UTF-16, which is what escapes are written in.
        let mut units: Vec<u16> = Vec::new();
        loop {
            match self.take(|c| c >= ' ')? {
                '"' => return Some(String::from_utf16(&units).ok()),
                '\\' => units.push(self.escaped()?),
                other => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
            }
        }
    }

    fn escaped(&mut self) -> Option<u16> {
        let simple = match self.left.pop()? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut unit = 0;
                for _ in 0..4 {
                    unit = unit * 16 + u16::try_from(self.left.pop()?.to_digit(16)?).ok()?;
                }
                return Some(unit);
            }
            _ => return None,
        };
        u16::try_from(u32::from(simple)).ok()
    }
}
