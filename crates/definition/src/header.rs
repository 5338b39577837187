//! A stage's header.

use crate::error::{Error, Problem, nearest};
use crate::lines::Line;

/// What the lines of a header are about. Who bootstraps says which of them it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyword {
    Bootstrap,
    From,
    Stage,
    Registry,
    Namespace,
    Library,
    IncludeCmd,
    MirrorUrl,
    UpdateUrl,
    OsVersion,
    Include,
    Fingerprints,
    Keyserver,
    Product,
    User,
    RegCode,
    ProductPgp,
    RegisterUrl,
    Modules,
    /// `OtherURL1`, `OtherURL2` …
    OtherUrl(u32),
    ConfUrl,
    SetOpt,
    Target,
    Frontend,
    Filename,
    BuildArgs,
}

/// Upper and lower case are one; the image's labels have them in lower case.
const NAMES: [(&str, Keyword); 25] = [
    ("bootstrap", Keyword::Bootstrap),
    ("from", Keyword::From),
    ("stage", Keyword::Stage),
    ("registry", Keyword::Registry),
    ("namespace", Keyword::Namespace),
    ("library", Keyword::Library),
    ("includecmd", Keyword::IncludeCmd),
    ("mirrorurl", Keyword::MirrorUrl),
    ("updateurl", Keyword::UpdateUrl),
    ("osversion", Keyword::OsVersion),
    ("include", Keyword::Include),
    ("fingerprints", Keyword::Fingerprints),
    ("keyserver", Keyword::Keyserver),
    ("product", Keyword::Product),
    ("user", Keyword::User),
    ("regcode", Keyword::RegCode),
    ("productpgp", Keyword::ProductPgp),
    ("registerurl", Keyword::RegisterUrl),
    ("modules", Keyword::Modules),
    ("confurl", Keyword::ConfUrl),
    ("setopt", Keyword::SetOpt),
    ("target", Keyword::Target),
    ("frontend", Keyword::Frontend),
    ("filename", Keyword::Filename),
    ("buildargs", Keyword::BuildArgs),
];
const OTHER_URL: &str = "otherurl";

impl Keyword {
    /// Of a name in lower case.
    fn find(name: &str) -> Option<Self> {
        let other = || name.strip_prefix(OTHER_URL)?.parse().ok().map(Self::OtherUrl);
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, keyword)| *keyword).or_else(other)
    }

    /// In lower case.
    pub fn name(self) -> String {
        match self {
            Self::OtherUrl(number) => format!("{OTHER_URL}{number}"),
            keyword => NAMES
                .iter()
                .find(|(_, known)| *known == keyword)
                .map(|(name, _)| (*name).to_owned())
                .unwrap_or_default(),
        }
    }
}

/// One `KEYWORD: VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub keyword: Keyword,
    pub value: String,
    /// Where it begins, from 1.
    pub line: u32,
    /// The line's text, for messages.
    pub text: String,
}

/// In the order of the file, each keyword once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub fields: Vec<Field>,
}

impl Header {
    pub fn field(&self, keyword: Keyword) -> Option<&Field> {
        self.fields.iter().find(|field| field.keyword == keyword)
    }

    /// None also for a keyword whose value is empty.
    pub fn get(&self, keyword: Keyword) -> Option<&str> {
        self.field(keyword).map(|field| field.value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A value that goes on in the next line.
struct Open {
    keyword: Keyword,
    value: String,
    line: Line,
}

/// The header that `lines` are; what it says twice goes to `warnings`.
pub(crate) fn parse(file: &str, lines: &[Line], warnings: &mut Vec<String>) -> Result<Header, Error> {
    let mut header = Header::default();
    let mut open: Option<Open> = None;
    for line in lines {
        let trimmed = line.text.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            // What was to go on ends here; the reference keeps what there was.
            if let Some(Open { keyword, value, line }) = open.take() {
                set(&mut header, file, warnings, keyword, value, &line);
            }
            continue;
        }
        let text = trimmed.split('#').next().unwrap_or_default();
        let (keyword, value, first) = match open.take() {
            Some(Open { keyword, value, line }) => (keyword, value + text.trim(), line),
            None => {
                let (keyword, value) = field(file, line, text)?;
                (keyword, value, line.clone())
            }
        };
        match value.strip_suffix('\\') {
            Some(start) => {
                let value = start.strip_suffix("\\n").map_or_else(|| start.to_owned(), |start| format!("{start}\n"));
                open = Some(Open { keyword, value, line: first });
            }
            None => set(&mut header, file, warnings, keyword, value, &first),
        }
    }
    if let Some(Open { keyword, value, line }) = open {
        set(&mut header, file, warnings, keyword, value, &line);
    }
    Ok(header)
}

fn field(file: &str, line: &Line, text: &str) -> Result<(Keyword, String), Error> {
    let Some((name, value)) = text.split_once(':') else {
        return Err(line.wrong(file, Problem::NoValue));
    };
    let lower = name.trim().to_lowercase();
    let keyword = Keyword::find(&lower).ok_or_else(|| {
        let start = line.text.len() - line.text.trim_start().len();
        let nearest = nearest(&lower, NAMES.iter().map(|(name, _)| *name));
        line.error(file, start..start + name.trim_end().len(), Problem::Keyword { name: lower.clone(), nearest })
    })?;
    Ok((keyword, value.trim().to_owned()))
}

fn set(header: &mut Header, file: &str, warnings: &mut Vec<String>, keyword: Keyword, value: String, line: &Line) {
    let field = Field { keyword, value, line: line.number, text: line.text.clone() };
    match header.fields.iter_mut().find(|known| known.keyword == keyword) {
        Some(known) => {
            warnings.push(format!("{file}:{}: {} stands twice, this one counts", line.number, keyword.name()));
            *known = field;
        }
        None => header.fields.push(field),
    }
}
