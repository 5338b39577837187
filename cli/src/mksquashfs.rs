//! `--mksquashfs-args`: the few options of mksquashfs that mean something to our writer.

use crate::pull::codec_of;
use siforge_build::Recipe;

const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 20;

/// The recipe, or why there is none. mksquashfs's own defaults: gzip, 128 KiB.
pub(crate) fn recipe(text: &str) -> Result<Recipe, &'static str> {
    let (mut codec, mut level, mut block_size) = ("gzip", None, 128 << 10);
    let mut words = text.split_whitespace();
    while let Some(option) = words.next() {
        let mut value = || words.next().ok_or("its last option has no value");
        match option {
            "-comp" => codec = value()?,
            "-Xcompression-level" => level = Some(value()?),
            "-b" => block_size = size(value()?).ok_or("a block has 64K, 128K, 256K, 512K or 1M")?,
            // How fast it is, not what it gives.
            "-processors" | "-mem" => drop(value()?),
            "-no-progress" | "-quiet" | "-noappend" => {}
            _ => {
                return Err(
                    "of its options there are -comp, -Xcompression-level and -b (-processors, -mem count for nothing)",
                );
            }
        }
    }
    let name = level.map_or_else(|| codec.to_owned(), |level| format!("{codec}:{level}"));
    let codec = codec_of(&name).ok_or("-comp is gzip, lz4, xz or zstd, with a level that it has")?;
    Ok(Recipe { codec, block_size, ..Recipe::default() })
}

/// `131072`, `128K`, `1M`.
fn size(text: &str) -> Option<u32> {
    let (digits, shift) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 0), |digits| (digits, 20)),
    };
    let bytes = digits.parse::<u32>().ok()?.checked_mul(1 << shift)?;
    (bytes.is_power_of_two() && BLOCK_SIZES.contains(&bytes)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_build::Codec;

    #[test]
    fn options_of_mksquashfs() {
        let check = |text: &str, expect: Option<(Codec, u32)>| {
            let found = recipe(text).ok().map(|recipe| (recipe.codec, recipe.block_size));
            assert_eq!(found, expect, "{text}");
        };
        check("", Some((Codec::Gzip { level: 9 }, 128 << 10)));
        check("-comp zstd -Xcompression-level 19 -b 1M", Some((Codec::Zstd { level: 19 }, 1 << 20)));
        check("-comp xz -processors 4", Some((Codec::Xz { level: 6 }, 128 << 10)));
        check("-b 262144 -noappend", Some((Codec::Gzip { level: 9 }, 256 << 10)));
        for wrong in [
            "-comp lzo",
            "-comp",
            "-b 3K",
            "-b 4M",
            "-b 99999999M",
            "-all-root",
            "zstd",
            "-comp zstd -Xcompression-level 99",
        ] {
            check(wrong, None);
        }
    }
}
