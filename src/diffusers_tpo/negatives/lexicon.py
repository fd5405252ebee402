"""Words that may stand for one another in a caption, grouped by what they say about the image. Data only, no code.

In a group, `|` separates meanings that exclude one another in an image, and `,` separates words for one meaning, which are
never exchanged. Only what stays a sensible caption after the exchange belongs in one group.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Words of one kind.

    Args:
        principle: what their exchange changes, a key of `PRINCIPLES`.
        kind: the group's name.
        grammar: how they stand in a sentence: noun, adjective, verb, phrase (word for word), surface (nouns after "on"),
            relation (before a noun), place (nouns after "in") or scene (adjectives of weather before a fitting noun).
        words: the meanings and their words.
        clash: groups with the same mark speak of the same thing: a caption with two of them, or with one of the words
            in CLASHES, is left alone.
        before: the only kind of noun that the adjective may stand before: "animate", "thing", or any.
    """

    principle: str
    kind: str
    grammar: str
    words: str
    clash: str = ""
    before: str = ""

    @property
    def meanings(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(word.strip() for word in part.split(",")) for part in self.words.split("|"))


GROUPS = (
    # content: nouns in the singular
    Group("content", "person", "noun", "man, gentleman, guy | woman, lady | boy | girl"),
    Group("content", "pet", "noun", "cat, kitten | dog, puppy | rabbit, bunny | fox | hamster"),
    Group("content", "farm animal", "noun", "horse, pony | cow, bull | sheep, lamb | goat | donkey | pig | camel"),
    Group("content", "wild animal", "noun", "elephant | giraffe | zebra | lion | tiger | bear | rhino | leopard | wolf"),
    Group("content", "bird", "noun", "eagle | owl | parrot | duck | swan | pigeon | seagull | crow, raven | flamingo"),
    Group("content", "car", "noun", "car | truck | bus | van | motorcycle, motorbike | bicycle, bike | tractor"),
    Group("content", "fruit", "noun", "apple | banana | pear | peach | lemon | strawberry | pineapple | watermelon | mango"),
    Group("content", "seat", "noun", "chair, armchair | sofa, couch | bench | stool"),
    Group("content", "instrument", "noun", "guitar | violin | cello | trumpet | saxophone | flute | accordion"),
    Group("content", "shape", "noun", "cube | sphere, ball | pyramid | cone | cylinder"),
    Group("content", "flat shape", "noun", "circle | square | triangle | star | hexagon"),
    # attribute
    Group("attribute", "colour", "adjective", "red | blue | green | yellow | purple, violet | orange | pink | black | white | brown | gray, grey"),
    Group("attribute", "material", "adjective", "wooden | metal, metallic, steel | glass | stone | plastic | leather | marble | ceramic"),
    Group("attribute", "size", "adjective", "small, little, tiny | large, big, huge, giant"),
    Group("attribute", "age", "adjective", "old, elderly | young", before="animate"),
    Group("attribute", "newness", "adjective", "old, ancient, antique, vintage | new, modern, futuristic", before="thing"),
    Group("attribute", "style", "phrase", "oil painting | watercolor painting | pencil sketch, pencil drawing | charcoal drawing | pixel art", "style"),
    # spatial
    Group("spatial", "relation", "relation", "on top of | under, underneath, beneath | next to, beside | behind | in front of"),
    Group("spatial", "surface", "surface", "table | bench | chair | bed | shelf | desk | box | car | couch | sofa"),
    Group("spatial", "inside", "relation", "inside | outside"),
    Group("spatial", "side", "phrase", "on the left | on the right"),
    Group("spatial", "side of", "phrase", "to the left of | to the right of"),
    Group("spatial", "pose", "verb", "sit | stand | lie | kneel"),
    Group("spatial", "motion", "verb", "walk | run | stand"),
    # contextual
    Group("contextual", "time of day", "phrase", "at night | at sunrise, at dawn | at sunset, at dusk | at noon", "sky"),
    Group("contextual", "weather", "scene", "sunny | rainy | snowy | foggy, misty | stormy | cloudy, overcast", "sky"),
    Group("contextual", "season", "phrase", "in winter | in summer | in spring | in autumn, in fall", "sky"),
    Group("contextual", "landscape", "place", "forest, woods | desert | meadow | jungle | city | swamp | field | garden"),
    Group("contextual", "room", "place", "kitchen | bedroom | bathroom | living room | office | garage | library | classroom"),
)

# Phrases that are one thing: none of their words is ever exchanged.
FIXED = """
hot dog, fire truck, orange juice, white wine, red wine, black and white, teddy bear, polar bear, brown bear, golden retriever, blue jay
""".replace("\n", " ").split(",")

# Words beyond the groups that speak of the same thing as the groups with this mark.
CLASHES = {
    "sky": "sun sunlight sunshine moon moonlight star stars snow rain fog mist night sunset sunrise sunny dark daylight",
    "style": "photo photograph photography painting drawing sketch render illustration cartoon art style",
}

# Adjectives that say nothing which an exchange of the noun could turn into nonsense.
ADJECTIVES = """
beautiful cute lovely happy sad smiling single lone lonely big small large little tiny huge old young tall short white black red
blue green yellow orange purple pink brown gray grey dark bright colorful colourful pretty
"""

# Living things beyond the groups of persons and animals.
ANIMATE = """
person people child children kid baby toddler men women player skier surfer rider cyclist animal bird couple family friend
tourist worker soldier wizard knight king queen princess girl boy bear
"""

# Nouns whose colour belongs to them: another one would be nonsense, not a mismatch.
NATURAL = "sky sea ocean water snow grass cloud clouds leaf leaves sun moon light lights night skin photo photograph painting"

# Words that speak of the other sex; a caption with one of them keeps its persons.
GENDERED = "he him his himself she her hers herself beard bearded pregnant dress skirt wife husband mother father son daughter"

# What "on a table" cannot be exchanged after.
FIRM = "written painted printed drawn displayed hanging hung mounted riding walking turned growing based focus rides spread lid"

# Words that count things once more; a caption with one of them keeps its numbers.
COUNTING = "each other both one another respectively first second third pair single half dozen pm am o'clock"

# Words for one meaning beyond the groups: an edit that only exchanges these contradicts nothing.
SAME = """
photo, photograph, picture, image | street, road | large, big, huge | small, little, tiny | next to, beside
"""

NUMBERS = {
    word: value
    for value, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}
NUMBERS |= {str(value): value for value in range(1, 101)}
SYNONYMS = {
    word.strip(): part.split(",")[0].strip()
    for block in [SAME, *(group.words for group in GROUPS)]
    for part in block.split("|")
    for word in part.split(",")
    if " " not in word.strip()
}
