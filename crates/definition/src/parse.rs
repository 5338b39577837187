//! Lines → stages → header and sections.

use crate::arguments::{self, Arguments};
use crate::error::{Error, Problem, nearest};
use crate::files::{self, Files};
use crate::lines::{self, Line};
use crate::{App, Definition, Script, Stage, header};
use std::collections::{BTreeMap, BTreeSet};

/// Stages of a file.
pub const MAX_STAGES: usize = 256;
/// Sections of a stage.
pub const MAX_SECTIONS: usize = 4096;

const PLAIN: [&str; 11] =
    ["pre", "setup", "files", "post", "environment", "runscript", "startscript", "test", "labels", "help", "arguments"];
const OF_APPS: [&str; 8] =
    ["appinstall", "applabels", "appfiles", "appenv", "apprun", "appstart", "apptest", "apphelp"];

pub(crate) fn parse(file: &str, bytes: &[u8], given: &Arguments) -> Result<Definition, Error> {
    let lines = lines::lines(file, bytes)?;
    let mut definition =
        Definition { stages: Vec::new(), text: String::new(), warnings: Vec::new(), unused_arguments: Vec::new() };
    let mut used = BTreeSet::new();
    for chunk in chunks(&lines) {
        let chunk = fill_in(file, chunk, given, &mut used, &mut definition.warnings)?;
        for line in &chunk {
            definition.text.push_str(&line.text);
            definition.text.push('\n');
        }
        if chunk.iter().all(|line| is_nothing(&line.text)) {
            continue;
        }
        if definition.stages.len() == MAX_STAGES {
            return Err(lines::whole(file, Problem::TooMany { what: "stages", max: MAX_STAGES }));
        }
        let (stage, warnings) = stage(file, &chunk, &definition)?;
        // Sections alone are a file that `--update` takes, where they are the whole of it.
        let headless = definition.stages.first().is_some_and(|first| first.header.is_empty());
        if headless && let Some(line) = lines.iter().find(|line| !is_nothing(&line.text)) {
            return Err(line.wrong(file, Problem::NoBootstrap));
        }
        definition.warnings.extend(warnings);
        definition.stages.push(stage);
    }
    if definition.stages.is_empty() {
        return Err(lines::whole(file, Problem::Empty));
    }
    definition.unused_arguments = given.values.keys().filter(|name| !used.contains(*name)).cloned().collect();
    Ok(definition)
}

fn is_nothing(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('#')
}

/// The lines of each stage. What stands before the first `Bootstrap:` is its own part only if it says something.
fn chunks(lines: &[Line]) -> Vec<&[Line]> {
    let begins = |line: &Line| line.text.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("bootstrap:"));
    let mut chunks = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let end = rest.iter().skip(1).position(begins).map_or(rest.len(), |at| at + 1);
        let (chunk, after) = rest.split_at(end);
        chunks.push(chunk);
        rest = after;
    }
    // Header lines may stand before `Bootstrap:`; sections may not.
    if let [first, second, ..] = chunks[..]
        && !first.first().is_some_and(begins)
        && !first.iter().any(|line| section_word(&line.text).is_some())
    {
        let joined = &lines[..first.len() + second.len()];
        chunks.splice(..2, [joined]);
    }
    chunks
}

/// A stage's lines with its arguments filled in.
fn fill_in(
    file: &str,
    chunk: &[Line],
    given: &Arguments,
    used: &mut BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Line>, Error> {
    let defaults = defaults(file, chunk, warnings)?;
    let mut filled = Vec::with_capacity(chunk.len());
    for line in chunk {
        let text = arguments::substitute(file, line, given, &defaults, used)?;
        if text.len() > lines::MAX_LINE {
            let problem = Problem::LongLine { bytes: text.len(), max: lines::MAX_LINE };
            return Err(line.error(file, 0..0, problem));
        }
        // A value may have lines of its own.
        filled.extend(text.split('\n').map(|text| Line { number: line.number, text: text.to_owned() }));
    }
    Ok(filled)
}

/// What `%arguments` say.
fn defaults(file: &str, chunk: &[Line], warnings: &mut Vec<String>) -> Result<BTreeMap<String, String>, Error> {
    let (mut defaults, mut inside) = (BTreeMap::new(), false);
    for line in chunk {
        if let Some(word) = section_word(&line.text) {
            inside = word[1..].eq_ignore_ascii_case("arguments");
            continue;
        }
        if !inside || is_nothing(&line.text) {
            continue;
        }
        match arguments::name_and_value(&line.text) {
            Some((name, value)) => drop(defaults.insert(name.to_owned(), value.to_owned())),
            None => warnings.push(format!("{file}:{}: no NAME=VALUE: this line of %arguments is skipped", line.number)),
        }
        if defaults.len() > arguments::MAX_ARGUMENTS {
            let problem = Problem::TooMany { what: "arguments", max: arguments::MAX_ARGUMENTS };
            return Err(line.wrong(file, problem));
        }
    }
    Ok(defaults)
}

/// The first word of a line that begins a section.
fn section_word(text: &str) -> Option<&str> {
    text.split_whitespace().next().filter(|word| word.starts_with('%'))
}

fn stage(file: &str, chunk: &[Line], before: &Definition) -> Result<(Stage, Vec<String>), Error> {
    let start = chunk.iter().position(|line| section_word(&line.text).is_some()).unwrap_or(chunk.len());
    let (head, mut rest) = chunk.split_at(start);
    let mut warnings = Vec::new();
    let mut stage = Stage { header: header::parse(file, head, &mut warnings)?, ..Stage::default() };
    let mut count = 0;
    while let Some((title, body)) = rest.split_first() {
        count += 1;
        if count > MAX_SECTIONS {
            return Err(title.wrong(file, Problem::TooMany { what: "sections", max: MAX_SECTIONS }));
        }
        let end = body.iter().position(|line| section_word(&line.text).is_some()).unwrap_or(body.len());
        let (body, after) = body.split_at(end);
        section(file, &mut stage, title, body, before)?;
        rest = after;
    }
    if let Some(name) = stage.name()
        && before.stage(name).is_some()
    {
        warnings.push(format!("{file}: two stages are called {name:?}: the first is meant by its name"));
    }
    Ok((stage, warnings))
}

fn section(file: &str, stage: &mut Stage, title: &Line, body: &[Line], before: &Definition) -> Result<(), Error> {
    let word = section_word(&title.text).unwrap_or_default();
    let start = title.text.find(word).unwrap_or_default();
    let end = start + word.len();
    // `%%post` is a section too, in the reference.
    let name = word.trim_start_matches('%').to_lowercase();
    let options = title.text[end..].split('#').next().unwrap_or_default().trim();
    if OF_APPS.contains(&name.as_str()) {
        return app_section(file, stage, title, &name, options, body);
    }
    if !PLAIN.contains(&name.as_str()) {
        let nearest = nearest(&name, PLAIN.iter().chain(&OF_APPS).copied());
        return Err(title.error(file, start..end, Problem::Section { name, nearest }));
    }
    let slot = match name.as_str() {
        "files" => return add_files(file, stage, title, options, body, before),
        "labels" => {
            stage.labels.extend(labels(body));
            return Ok(());
        }
        // Read before the arguments were filled in.
        "arguments" => return Ok(()),
        "pre" => &mut stage.pre,
        "setup" => &mut stage.setup,
        "post" => &mut stage.post,
        "environment" => &mut stage.environment,
        "runscript" => &mut stage.runscript,
        "startscript" => &mut stage.startscript,
        "test" => &mut stage.test,
        _ => &mut stage.help,
    };
    check_options(file, title, &name, options)?;
    append(slot, title, options, body);
    Ok(())
}

/// `-c` at the end has nothing to run.
fn check_options(file: &str, title: &Line, section: &str, options: &str) -> Result<(), Error> {
    let is_run = matches!(section, "pre" | "setup" | "post");
    match is_run && options.split_whitespace().next_back() == Some("-c") {
        true => Err(title.wrong(file, Problem::NoShell { section: section.to_owned() })),
        false => Ok(()),
    }
}

fn append(slot: &mut Option<Script>, title: &Line, options: &str, body: &[Line]) {
    if body.is_empty() && slot.is_none() {
        return;
    }
    let script = slot.get_or_insert_with(|| Script { line: title.number, ..Script::default() });
    if !options.is_empty() {
        script.options = options.to_owned();
    }
    for line in body {
        script.text.push_str(&line.text);
        script.text.push('\n');
        script.lines.push(line.number);
    }
}

fn labels(body: &[Line]) -> impl Iterator<Item = (String, String)> {
    body.iter().map(|line| line.text.trim()).filter(|text| !is_nothing(text)).map(|text| {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        (name.to_owned(), value.trim().to_owned())
    })
}

fn add_files(
    file: &str,
    stage: &mut Stage,
    title: &Line,
    options: &str,
    body: &[Line],
    before: &Definition,
) -> Result<(), Error> {
    let words: Vec<&str> = options.split_whitespace().collect();
    let from = match words[..] {
        [] => None,
        ["from", name] => Some(name),
        _ => return Err(title.wrong(file, Problem::FilesFrom)),
    };
    if let Some(name) = from
        && before.stage(name).is_none()
    {
        let nearest = nearest(name, before.stages.iter().filter_map(Stage::name));
        let start = title.text.rfind(name).unwrap_or_default();
        let problem = Problem::NoStage { name: name.to_owned(), nearest };
        return Err(title.error(file, start..start + name.len(), problem));
    }
    let pairs = body.iter().filter_map(|line| files::pair(file, line).transpose()).collect::<Result<Vec<_>, _>>()?;
    match stage.files.iter_mut().find(|files| files.from.as_deref() == from) {
        Some(files) => files.pairs.extend(pairs),
        None => stage.files.push(Files { from: from.map(ToOwned::to_owned), pairs }),
    }
    Ok(())
}

fn app_section(
    file: &str,
    stage: &mut Stage,
    title: &Line,
    section: &str,
    options: &str,
    body: &[Line],
) -> Result<(), Error> {
    let Some(name) = options.split_whitespace().next() else {
        return Err(title.wrong(file, Problem::AppName { section: section.to_owned() }));
    };
    // It becomes a directory's name and part of scripts.
    let good = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if !name.chars().all(good) || name.starts_with('.') {
        let start = title.text.find(name).unwrap_or_default();
        let problem = Problem::BadAppName { name: name.to_owned() };
        return Err(title.error(file, start..start + name.len(), problem));
    }
    let number = stage.apps.iter().position(|app| app.name == name).unwrap_or_else(|| {
        stage.apps.push(App { name: name.to_owned(), ..App::default() });
        stage.apps.len() - 1
    });
    let app = &mut stage.apps[number];
    let slot = match section {
        "applabels" => {
            app.labels.extend(labels(body));
            return Ok(());
        }
        "appfiles" => {
            for line in body {
                app.files.extend(files::pair(file, line)?);
            }
            return Ok(());
        }
        "appinstall" => &mut app.install,
        "appenv" => &mut app.environment,
        "apprun" => &mut app.run,
        "appstart" => &mut app.start,
        "apptest" => &mut app.test,
        _ => &mut app.help,
    };
    append(slot, title, "", body);
    Ok(())
}
