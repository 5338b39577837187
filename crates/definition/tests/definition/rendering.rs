//! What sections become in an image.

use crate::parse;
use siforge_definition::{Script, Stage, render};

fn stage(text: &str) -> Stage {
    parse(text, &[]).unwrap_or_else(|error| panic!("{error}")).stages.remove(0)
}

fn run(text: &str) -> Script {
    stage(text).runscript.unwrap_or_default()
}

#[test]
fn scripts() {
    let check = |section: &str, expected: &str| assert_eq!(render::script(&run(section)), expected, "{section:?}");
    check("%runscript\n  echo $1\n", "#!/bin/sh\n\n  echo $1\n\n");
    check("%runscript\n#!/bin/bash -u \necho\n", "#!/bin/bash -u\n\necho\n\n");
    check("%runscript -x # why\necho\n", "#!/bin/sh -x\n\necho\n\n");
    check("%runscript\n\n  #!/usr/bin/python3\nprint()\n", "#!/usr/bin/python3\n\nprint()\n\n");
    check("%runscript\n#!/bin/true", "#!/bin/true\n\n\n");
}

#[test]
fn environments_follow_the_bases() {
    let script = stage("%environment\nexport A=1\n").environment.unwrap_or_default();
    assert_eq!(render::environment(None, &script), "#!/bin/sh\n\nexport A=1\n\n");
    assert_eq!(
        render::environment(Some("#!/bin/sh\nexport B=2\n"), &script),
        "#!/bin/sh\nexport B=2\n\nexport A=1\n\n"
    );
}

#[test]
fn commands() {
    let check = |options: &str, expected: &[&str]| {
        let post = stage(&format!("%post {options}\nx\n")).post.unwrap_or_default();
        assert_eq!(render::command(&post, "/s"), expected, "{options:?}");
    };
    check("", &["/bin/sh", "-ex", "/s"]);
    check("-u # x", &["/bin/sh", "-ex", "-u", "/s"]);
    check("-c /bin/bash", &["/bin/sh", "-ex", "-c", "/bin/bash /s"]);
    check("-u -c /bin/bash -x", &["/bin/sh", "-ex", "-u", "-c", "/bin/bash -x /s"]);
}

#[test]
fn headers_become_labels() {
    let stage = stage("Bootstrap: zypper\nOtherURL1: x\n");
    let labels: Vec<_> = render::header_labels(&stage.header).into_iter().collect();
    let name = |key: &str| format!("org.label-schema.usage.singularity.deffile.{key}");
    assert_eq!(labels, [(name("bootstrap"), "zypper".to_owned()), (name("otherurl1"), "x".to_owned())]);
}

#[test]
fn apps() {
    let stage = stage("%appinstall a-b\nmake\n%apprun a-b\nrun\n%apphelp a-b\nhelp\n%applabels a-b\nx y\n");
    let app = &stage.apps[0];
    let rendered = render::app(app);
    let all: Vec<_> = rendered.iter().map(|item| (item.path.as_str(), item.mode, item.contents.is_some())).collect();
    assert_eq!(
        all,
        [
            ("scif", 0o755, false),
            ("scif/apps", 0o755, false),
            ("scif/data", 0o755, false),
            ("scif/apps/a-b", 0o755, false),
            ("scif/apps/a-b/bin", 0o755, false),
            ("scif/apps/a-b/lib", 0o755, false),
            ("scif/apps/a-b/scif", 0o755, false),
            ("scif/apps/a-b/scif/env", 0o755, false),
            ("scif/data/a-b", 0o755, false),
            ("scif/data/a-b/input", 0o755, false),
            ("scif/data/a-b/output", 0o755, false),
            ("scif/apps/a-b/scif/env/01-base.sh", 0o755, true),
            ("scif/apps/a-b/scif/runscript", 0o755, true),
            ("scif/apps/a-b/scif/runscript.help", 0o644, true),
        ]
    );
    assert_eq!(render::app_destination(app, "/x/y"), "/scif/apps/a-b/x/y");
    let labels: Vec<_> = render::app_labels(app).into_iter().collect();
    assert_eq!(labels, [("SCIF_APP_NAME".into(), "a-b".into()), ("x".into(), "y".into())]);
    let install = render::install(&stage.apps);
    assert_eq!(install, "\ncd /\n. /scif/apps/a-b/scif/env/01-base.sh\ncd /scif/apps/a-b\nmake\n\ncd /\n");
    let environment = render::apps_environment(&stage.apps);
    let seen = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{environment}\necho $SCIF_APPROOT_a_b $SCIF_APPRUN_a_b ${{SCIF_APPENV_a_b:-none}}"))
        .output()
        .expect("run sh");
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "/scif/apps/a-b /scif/apps/a-b/scif/runscript none\n");
}
