//! Tax numbers that look real: nine digits and GİB's check digit.

/// The VKN of the `index`-th test taxpayer.
pub(super) fn test_vkn(index: u32) -> String {
    let body = format!("{:09}", 100_000_000 + u64::from(index) % 900_000_000);
    let check = check_digit(body.as_bytes());
    format!("{body}{check}")
}

/// The tenth digit of a VKN, from its first nine (the algorithm that GİB publishes for Vergi Kimlik Numarası).
fn check_digit(digits: &[u8]) -> u32 {
    let terms = digits.iter().zip((1..=9_u32).rev()).map(|(digit, place)| {
        let shifted = (u32::from(digit - b'0') + place) % 10;
        match (shifted, shifted * 2_u32.pow(place) % 9) {
            (0, _) => 0,
            (_, 0) => 9,
            (_, rest) => rest,
        }
    });
    (10 - terms.sum::<u32>() % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_digit_is_that_of_real_tax_numbers() {
        // Numbers that carry a check digit in GİB's own samples.
        for known in [
            "9205121120",
            "1460415308",
            "7570308311",
            "1870200192",
            "8450309570",
            "7620006073",
        ] {
            let (body, check) = known.split_at(9);
            assert_eq!(check_digit(body.as_bytes()).to_string(), check, "{known}");
        }
    }

    #[test]
    fn test_taxpayers_differ() {
        let numbers: std::collections::BTreeSet<_> = (0..5000).map(test_vkn).collect();
        assert_eq!(numbers.len(), 5000);
        assert!(numbers.iter().all(|n| crate::config::is_taxpayer(n)));
    }
}
