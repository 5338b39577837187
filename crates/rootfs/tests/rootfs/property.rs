//! The top-down merge against the bottom-up model, on random small stacks of layers.

use proptest::prelude::*;

use crate::builder::layer;
use crate::image::{Image, image};
use crate::model::{Model, Op};

fn path() -> impl Strategy<Value = String> {
    // Few names, so that they meet.
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(vec!["", "", "/", "../", "../../"]);
    (prefix, path()).prop_map(|(prefix, path)| format!("{prefix}{path}"))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (path(), prop::sample::select(vec![0o755, 0o700, 0o711]))
            .prop_map(|(path, mode)| Op::Directory { path, mode }),
        5 => path().prop_map(|path| Op::File { path, data: String::new() }),
        2 => (path(), target()).prop_map(|(path, target)| Op::Symlink { path, target }),
        4 => (path(), path()).prop_map(|(path, target)| Op::Link { path, target }),
        2 => path().prop_map(|path| Op::Whiteout { path }),
        1 => prop_oneof![Just(String::new()), path()].prop_map(|path| Op::Opaque { path }),
    ]
}

fn stack() -> impl Strategy<Value = Vec<Vec<Op>>> {
    prop::collection::vec(prop::collection::vec(op(), 0..10), 1..5)
}

fn word(op: &Op) -> String {
    let beside = |path: &str, marker: &str| match path.rsplit_once('/') {
        Some((dir, name)) => format!("f:{dir}/{marker}{name}"),
        None => format!("f:{marker}{path}"),
    };
    match op {
        Op::Directory { path, mode } => format!("d:{path}:{mode:o}"),
        Op::File { path, data } => format!("f:{path}={data}"),
        Op::Symlink { path, target } => format!("s:{path}>{target}"),
        Op::Link { path, target } => format!("h:{path}>{target}"),
        Op::Whiteout { path } => beside(path, ".wh."),
        Op::Opaque { path } => format!("f:{path}/.wh..wh..opq"),
    }
}

/// Files get contents that name them; what the model cannot apply is left out if `only_valid`. The model is None when
/// something did not apply.
fn prepare(stack: Vec<Vec<Op>>, only_valid: bool) -> (Vec<String>, Option<Model>) {
    let mut model = Model::default();
    let mut valid = true;
    let mut count = 0;
    let mut layers = Vec::new();
    for ops in stack {
        let mut words = Vec::new();
        for mut op in ops {
            if let Op::File { data, .. } = &mut op {
                count += 1;
                *data = count.to_string();
            }
            let applied = model.apply(&op).is_ok();
            valid &= applied || only_valid;
            if applied || !only_valid {
                words.push(word(&op));
            }
        }
        model.end_layer();
        layers.push(words.join(" "));
    }
    (layers, valid.then_some(model))
}

fn merged(layers: &[String]) -> Result<Image, siforge_rootfs::Error> {
    let tars: Vec<Vec<u8>> = layers.iter().map(|words| layer(words)).collect();
    image(&tars.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_stacks_equal_the_model(stack in stack()) {
        let (layers, model) = prepare(stack, true);
        let image = merged(&layers);
        let model = model.expect("valid");
        match image {
            Ok(image) => prop_assert_eq!(image.text(), model.text(), "{:?}", layers),
            Err(error) => prop_assert!(false, "{}: {:?}, model: {}", error, layers, model.text()),
        }
    }

    #[test]
    fn invalid_stacks_fail_as_the_model_does(stack in stack()) {
        let (layers, model) = prepare(stack, false);
        let image = merged(&layers).map(|image| image.text()).ok();
        prop_assert_eq!(image, model.map(|model| model.text()), "{:?}", layers);
    }

    #[test]
    fn one_input_one_result(stack in stack()) {
        let (layers, _) = prepare(stack, true);
        let (one, two) = (merged(&layers).expect("valid"), merged(&layers).expect("valid"));
        prop_assert_eq!(one.tree.len(), two.tree.len());
        prop_assert_eq!(one.names(), two.names());
        prop_assert_eq!(one.contents.layers, two.contents.layers);
        prop_assert_eq!(one.restarted, two.restarted);
    }
}
