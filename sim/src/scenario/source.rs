//! From text to a scenario, and the errors on the way, which quote the place.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text (a scenario's, or a policy's alone) and the changes to it.
///
/// A span beyond the text's end lies in one of the changes: they count as if they were written
/// below the text, a line each.
pub(crate) struct Source<'a> {
    text: &'a str,
    origin: &'a str,
    sets: &'a [String],
}

impl<'a> Source<'a> {
    pub(crate) const fn new(text: &'a str, origin: &'a str, sets: &'a [String]) -> Self {
        Self { text, origin, sets }
    }

    /// The folder of the file.
    pub(crate) fn folder(&self) -> &'a Path {
        Path::new(self.origin).parent().unwrap_or(Path::new(""))
    }

    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, ScenarioError> {
        let mut root = DeTable::parse(self.text).map_err(|error| self.explain(&error))?;
        let values = self.set_values()?;
        for (place, (set, value)) in self.sets.iter().zip(&values).enumerate() {
            self.apply(root.get_mut(), place, set, value)?;
        }
        let deserializer = toml::de::Deserializer::from(root);
        T::deserialize(deserializer).map_err(|error| self.explain(&error))
    }

    /// The values of the changes as TOML, moved to where their spans are right.
    fn set_values(&self) -> Result<Vec<String>, ScenarioError> {
        let values = self.sets.iter().enumerate().map(|(place, set)| {
            let span = self.set_start(place)..self.set_start(place) + set.len();
            if set.chars().any(char::is_control) {
                let problem = "a change holds no line breaks and no control characters";
                return Err(ScenarioError::plain(format!("{problem}: --set {set:?}")));
            }
            let Some(equals) = path_end(set) else {
                return Err(self.error("a change is written as PATH=VALUE", &span));
            };
            let value = set.get(equals + 1..).unwrap_or_default();
            // "v=" ends where the value begins.
            let pad = "\n".repeat((self.set_start(place) + equals + 1).saturating_sub(2));
            let plain = format!("{pad}v={value}");
            // What is no TOML by itself, as 100/s, is a string.
            Ok(match DeTable::parse(&plain) {
                Ok(_) => plain,
                Err(_) => {
                    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("{pad}v=\"{quoted}\"")
                }
            })
        });
        values.collect()
    }

    fn apply<'t>(
        &self,
        root: &mut DeTable<'t>,
        place: usize,
        set: &str,
        value: &'t str,
    ) -> Result<(), ScenarioError> {
        let start = self.set_start(place);
        let path = set.get(..path_end(set).unwrap_or(set.len())).unwrap_or_default();
        let whole = start..start + path.len();
        let mut parsed = DeTable::parse(value).map_err(|error| self.explain(&error))?;
        let value = parsed
            .get_mut()
            .remove("v")
            .ok_or_else(|| self.error("a change is written as PATH=VALUE", &whole))?;
        let mut table = root;
        let mut offset = start;
        let mut segments = segments(path).into_iter().peekable();
        let mut parent = None;
        while let Some(segment) = segments.next() {
            let span = offset..offset + segment.len();
            offset += segment.len() + 1;
            let key = unquoted(segment);
            if segments.peek().is_none() {
                table.insert(Spanned::new(span, Cow::Owned(key.to_owned())), value);
                return Ok(());
            }
            if !table.contains_key(key) {
                // Peers and servers must be there already: a new one is a misspelt old one.
                if let Some(what) = parent.filter(|_| offset < whole.end) {
                    let known: Vec<_> = table.keys().map(|name| name.get_ref().as_ref()).collect();
                    let mut error = self.error(format!("unknown {what} `{key}`"), &span);
                    error.help = suggestion(key, &known);
                    return Err(error);
                }
                let empty = Spanned::new(whole.clone(), DeValue::Table(DeTable::new()));
                table.insert(Spanned::new(span.clone(), Cow::Owned(key.to_owned())), empty);
            }
            parent = match (key, span.start == start) {
                ("peers", true) => Some("group of peers"),
                ("servers", true) => Some("server"),
                _ => None,
            };
            let mut item = table.get_mut(key);
            if let Some(item) = item.as_deref_mut().filter(|_| key == "profile") {
                // What is wrong with the settings together is the change's doing.
                let settings = std::mem::replace(item.get_mut(), DeValue::Boolean(false));
                *item = Spanned::new(whole.clone(), settings);
            }
            table = match item.map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => inner,
                Some(DeValue::Array(items)) => {
                    let span = offset..offset + segments.peek().map_or(0, |next| next.len());
                    let wrong = || self.error("there is no such item of the list", &span);
                    let next = segments.next().unwrap_or_default();
                    offset += next.len() + 1;
                    let index = next.trim().parse::<usize>().map_err(|_| wrong())?;
                    let item = items.get_mut(index).ok_or_else(wrong)?;
                    if segments.peek().is_none() {
                        *item = value;
                        return Ok(());
                    }
                    match item.get_mut() {
                        DeValue::Table(inner) => inner,
                        _ => return Err(self.error("nothing lies below this", &span)),
                    }
                }
                _ => return Err(self.error("nothing lies below this", &span)),
            };
        }
        Ok(())
    }

    /// Whether this lies in one of the changes.
    pub(super) fn is_change(&self, span: &Range<usize>) -> bool {
        span.start > self.text.len()
    }

    /// Where a change begins, in spans.
    fn set_start(&self, place: usize) -> usize {
        let before = self.sets.iter().take(place).map(|set| set.len() + 1).sum::<usize>();
        self.text.len() + 1 + before
    }

    /// An error that this module or the check found.
    pub(crate) fn error(&self, message: impl Into<String>, span: &Range<usize>) -> ScenarioError {
        let (origin, text, span) = self.locate(span);
        ScenarioError { message: message.into(), help: None, place: Some((origin, text, span)) }
    }

    /// The same about `name`, which is none of `known`.
    pub(crate) fn unknown<'n>(
        &self,
        what: &str,
        name: &Spanned<String>,
        known: impl IntoIterator<Item = &'n str>,
    ) -> ScenarioError {
        let text = name.get_ref();
        let help = suggestion(text, &known.into_iter().collect::<Vec<_>>());
        let mut error = self.error(format!("unknown {what} `{text}`"), &name.span());
        error.help = help;
        error
    }

    /// An error of the TOML reader, in our words.
    fn explain(&self, error: &toml::de::Error) -> ScenarioError {
        let span = error.span().unwrap_or_default();
        let (origin, text, span) = self.locate(&span);
        let (message, help) = reword(error.message());
        ScenarioError { message, help, place: Some((origin, text, span)) }
    }

    fn locate(&self, span: &Range<usize>) -> (String, String, Range<usize>) {
        for (place, set) in self.sets.iter().enumerate().rev() {
            let start = self.set_start(place);
            if span.start >= start {
                let end = span.end.saturating_sub(start).min(set.len());
                let begin = (span.start - start).min(end);
                return ("--set".to_owned(), set.clone(), begin..end);
            }
        }
        let end = span.end.min(self.text.len());
        (self.origin.to_owned(), self.text.to_owned(), span.start.min(end)..end)
    }
}

/// The places of `wanted` in a change's path that are not within quotes.
fn unquoted_places(text: &str, wanted: char) -> impl Iterator<Item = usize> {
    let mut quote = None;
    let bare = text.char_indices().filter(move |(_, c)| {
        match quote {
            Some(open) if open == *c => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(*c),
            _ => {}
        }
        quote.is_none()
    });
    bare.filter(move |(_, c)| *c == wanted).map(|(place, _)| place)
}

/// Where the path of a change ends.
pub(crate) fn path_end(set: &str) -> Option<usize> {
    unquoted_places(set, '=').next()
}

/// The keys of a path, as they are written.
fn segments(path: &str) -> Vec<&str> {
    let ends = unquoted_places(path, '.').chain([path.len()]);
    let mut start = 0;
    let segments = ends.map(|end| {
        let segment = path.get(start..end).unwrap_or_default();
        start = end + 1;
        segment
    });
    segments.collect()
}

/// A key without the quotes around it.
fn unquoted(segment: &str) -> &str {
    let segment = segment.trim();
    let within = |quote| segment.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(segment)
}

/// Serde's words about an unknown name, turned into ours.
fn reword(message: &str) -> (String, Option<String>) {
    let unknown = [("unknown field `", "key"), ("unknown variant `", "word")];
    for (prefix, what) in unknown {
        let Some((name, known)) =
            message.strip_prefix(prefix).and_then(|rest| rest.split_once('`'))
        else {
            continue;
        };
        // Every second piece lies between backquotes.
        let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        return (format!("unknown {what} `{name}`"), suggestion(name, &known));
    }
    (message.to_owned(), None)
}

/// The known name that was most likely meant, or all of them.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> Option<String> {
    let mut near: Vec<_> =
        known.iter().map(|other| (strsim::damerau_levenshtein(name, other), *other)).collect();
    near.sort_unstable();
    match near.first() {
        Some((distance, other)) if *distance <= 1 + name.len() / 4 => {
            Some(format!("did you mean `{other}`?"))
        }
        Some(_) if known.len() <= 20 => Some(format!("it may be `{}`", known.join("`, `"))),
        _ => None,
    }
}

/// What is wrong with a scenario, and where.
///
/// Prints as a compiler's error does: the place, the line, a mark under it, and a suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    message: String,
    help: Option<String>,
    /// Its name, its text, and the span within.
    place: Option<(String, String, Range<usize>)>,
}

impl ScenarioError {
    /// An error without a place.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None }
    }

    /// The same about `name`, which is none of `known`.
    pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> Self {
        let help = suggestion(name, known);
        Self { message: format!("unknown {what} `{name}`"), help, place: None }
    }

    /// The same error, which also tells that.
    pub(crate) fn with_help(mut self, more: &str) -> Self {
        self.help = Some(match self.help {
            Some(help) => format!("{help}\n{more}"),
            None => more.to_owned(),
        });
        self
    }

    /// An error at a place within an option of the command.
    pub(crate) fn at(
        message: impl Into<String>,
        option: &str,
        text: &str,
        span: Range<usize>,
    ) -> Self {
        let place = Some((option.to_owned(), text.to_owned(), span));
        Self { message: message.into(), help: None, place }
    }

    /// The same error; where it quotes `change`, that is from this option of the command.
    pub(crate) fn called(mut self, option: &str, change: &str) -> Self {
        if let Some((origin, ..)) = self.place.as_mut().filter(|(_, text, _)| text == change) {
            option.clone_into(origin);
        }
        self
    }

    /// What is wrong, without the place.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The error as text, with terminal colours if `colour`.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut group = match &self.place {
            Some((origin, text, span)) => title.element(
                Snippet::source(text.as_str())
                    .path(origin.as_str())
                    .annotation(AnnotationKind::Primary.span(span.clone())),
            ),
            None => Group::with_title(title),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ScenarioError {}
