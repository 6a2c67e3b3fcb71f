//! Nations and the regions they are in: one nation for each letter and digit that a customer's state may begin with.

/// Regions, whose keys are their places here.
pub const REGIONS: [&str; 5] = ["Africa", "America", "Asia", "Australia", "Europe"];

/// The keys of Germany and Cambodia, which queries name, and of Cameroon, as a query asks for states with an A.
pub const NAMED: [u8; 3] = [b'P', b'9', b'A'];

/// Nations by region.
const NATIONS: [&[&str]; 5] = [
    &["Algeria", "Botswana", "Cameroon", "Egypt", "Ethiopia", "Ghana", "Kenya", "Morocco", "Mozambique", "Senegal"],
    &[
        "Argentina",
        "Bolivia",
        "Brazil",
        "Canada",
        "Chile",
        "Colombia",
        "Cuba",
        "Ecuador",
        "Jamaica",
        "Mexico",
        "Paraguay",
        "Peru",
        "United States",
        "Uruguay",
    ],
    &[
        "Cambodia",
        "China",
        "India",
        "Indonesia",
        "Iran",
        "Iraq",
        "Japan",
        "Jordan",
        "Malaysia",
        "Nepal",
        "Pakistan",
        "Saudi Arabia",
        "Thailand",
        "Vietnam",
    ],
    &["Australia", "Fiji", "New Zealand", "Samoa"],
    &[
        "Austria",
        "Belgium",
        "Bulgaria",
        "Croatia",
        "Denmark",
        "Estonia",
        "Finland",
        "France",
        "Germany",
        "Greece",
        "Hungary",
        "Ireland",
        "Italy",
        "Latvia",
        "Netherlands",
        "Norway",
        "Poland",
        "Portugal",
        "Romania",
        "Spain",
    ],
];

/// All nations by name, with the number of their region.
pub fn nations() -> Vec<(&'static str, usize)> {
    let of = |(region, names): (usize, &&'static [&'static str])| names.iter().map(move |name| (*name, region));
    let mut all: Vec<_> = NATIONS.iter().enumerate().flat_map(of).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ch::random::nation_keys;

    #[test]
    fn each_letter_has_its_nation() {
        let keyed: Vec<_> = nation_keys().zip(nations()).collect();
        assert_eq!((keyed.len(), nations().len()), (62, 62));
        let key = |name: &str| keyed.iter().find(|(_, nation)| nation.0 == name).unwrap().0;
        assert_eq!(NAMED, [key("Germany"), key("Cambodia"), key("Cameroon")]);
    }
}
