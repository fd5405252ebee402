"""Which language a caption is in, as far as its letters and its small words tell. Knows nothing of edits."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache


UNKNOWN = "unknown"
SCRIPTS = {  # the first word of the names of letters, where one language has most of its captions
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "THAI": "th",
    "HEBREW": "he",
    "GREEK": "el",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "ARABIC": "ar",
    "CYRILLIC": "ru",
}
SMALL_WORDS = {  # those that captions have, none of them in two lists
    "en": "the and with of on at is are his her by an over near from",
    "de": "der die das ein eine einem einer und mit auf dem den ist von im vor neben",
    "fr": "le les une et avec sur dans du au est sous devant près aux",
    "es": "el los las y una sobre bajo junto del al está unos",
    "it": "il gli e della sul nel un' che sotto accanto alla",
    "pt": "o os uma com em no da do ao sob perto numa",
    "nl": "het een en van op met naast onder bij voor zijn",
    "pl": "z w i pod przy obok oraz jest",
    "tr": "bir ve ile üzerinde altında yanında olan",
    "id": "yang dan dengan sebuah seorang atas dekat",
    "vi": "một và với trên của trong đang những",
    "sv": "och på med ett av bredvid är som",
}
WORD = re.compile(r"[^\W\d_]+")
WORDS = {word: language for language, words in SMALL_WORDS.items() for word in words.split()}


@lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _main_script(text: str) -> str:
    """The script of most letters; nothing if no script has most of them."""
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts.total():  # beside Chinese characters
        return "HIRAGANA"
    most, number = scripts.most_common(1)[0] if scripts.total() else ("", 0)
    return most if number > scripts.total() / 2 else ""


def language_of(text: str) -> str:
    """The code of a language, or `unknown`.

    Scripts tell most. Among languages in Latin letters the one with most small words in the text wins; lists of words and
    names have none, and are unknown.
    """
    if not text.isascii() and (script := _main_script(text)) != "LATIN":
        return SCRIPTS.get(script, UNKNOWN)
    found = Counter(WORDS[word] for word in WORD.findall(text.casefold()) if word in WORDS)
    if not found:
        return UNKNOWN
    (first, count), *others = found.most_common(2)
    return UNKNOWN if others and others[0][1] == count else first
