"""What captions speak of, grouped by what may stand for what. Data only.

In the words of a group, `|` separates meanings that exclude one another in an image, and `,` separates words for one
meaning, which are never exchanged. A word after `~` or `=` is found and exchanged, but never put in; one after `=` has that
meaning only in its group and is no synonym elsewhere. A word after `+` is only put in. Only what stays a sensible caption
after the exchange belongs in one group.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Group:
    """Words of one kind.

    Args:
        principle: what their exchange changes, a key of `PRINCIPLES`.
        kind: the group's name; the kinds of nouns make up the `CLASSES`.
        grammar: how they stand in a sentence:
            noun (in the singular here), plural (nouns without a singular), mass (nouns without a plural),
            adjective (before a noun or after "is"), verb (its base form here), relation (a preposition before a
            landmark), place (a preposition and a noun, with any article between them), side (a word and its opposite),
            phrase (word for word), item (word for word, alone between commas or brackets), tail (word for word, at the end
            of a noun phrase), name (who somebody is, word for word), artist (whose style it is, word for word).
        marked: the meanings and their words.
        of: for adjectives the nouns they suit, for relations the landmarks, for verbs the object, for sides the words
            that may follow, "@end" for the end of a noun phrase; words and @classes.
        by: for verbs and relations who is there or does it; words and @classes.
        unless: words and @classes that must not occur elsewhere in the caption.
        after: the words one of which must stand before the noun phrase with its article, or before a side; "^" is the
            start of the caption.
        verbs: the verbs that may have these nouns as object, beyond `OBJECT_VERBS`.
        alone: True if no other adjective may stand beside this one.
    """

    principle: str
    kind: str
    grammar: str
    marked: str
    of: str = ""
    by: str = ""
    unless: str = ""
    after: str = ""
    verbs: str = ""
    alone: bool = False

    @property
    def words(self) -> str:
        """The meanings and their words without marks and without words after `=`."""
        meanings = ([word.strip() for word in part.split(",")] for part in self.marked.split("|"))
        plain = (", ".join(word.lstrip("~") for word in words if word[0] not in "=+") for words in meanings)
        return " | ".join(filter(None, plain))


# Who becomes whom, and the pronouns that change with it; "her" becomes "his" or "him".
SEXES = {
    "man": "woman", "woman": "man", "boy": "girl", "girl": "boy",
    "men": "women", "women": "men", "boys": "girls", "girls": "boys",
}  # fmt: skip
PRONOUNS = {"he": "she", "his": "her", "him": "her", "himself": "herself", "she": "he", "herself": "himself"}
# What else speaks of one sex: captions with one of these words keep their men and women.
SEXED = (
    "beard bearded mustache moustache bald pregnant dress dresses skirt skirts gown gowns sundress bikini bra "
    "shirtless wife husband mother father mom dad son daughter bride groom sister brother grandmother grandfather "
    "aunt uncle tuxedo lipstick makeup leotard tutu ballerina lady's mr mrs ms sir madam stubble heels masculine "
    "feminine male female toilet nude naked topless kimono hijab ponytail ponytails"
)
GENDERED = f"he him his himself she her hers herself {SEXED}"
BABY = "baby babies toddler infant crib stroller playground kindergarten school toy toys"
OUTDOOR = (
    "park garden street streets road lake river sea ocean beach forest woods mountain mountains sidewalk tree trees "
    "outside outdoors outdoor field grass sand snow pier patio porch backyard yard desert campfire"
)
COOKING = (
    "kitchen oven stove pan pot cook cooks cooking dish dishes knife chop bake bakes baking restaurant pizza apron "
    "grill chopping slicing"
)
# Words that tell the time of day, and words that tell the weather.
LAMPS = (
    "lit neon lantern lanterns headlights glow glowing fireflies illuminated streetlights floodlights lamp lamps "
    "candle candles fireworks candlelight candlelit lights"
)
SUN = (
    "sun sunlight sunlit sunset sunrise moon moonlight moonlit star stars starry night nighttime midnight dawn dusk "
    "noon midday day daytime daylight morning afternoon evening twilight dark darkness shadow shadows breakfast "
    "dinner lunch rainbow sunny sleeping"
)
DAYTIME = f"{SUN} {LAMPS}"
WEATHER = (
    "sun sunlight sunshine sunlit sunny snow snowy snowing rain rainy raining rained rainbow fog foggy mist misty "
    "haze hazy storm stormy thunderstorm lightning cloud clouds cloudy overcast wet puddle puddles umbrella "
    "umbrellas raincoat raincoats shadow shadows blizzard hail hailstorm sunset sunrise moon moonlight stars starry "
    "ski skis skiing skier skiers snowboard snowboarder snowman icy ice frozen frost sunglasses"
)
SKY = f"{DAYTIME} {WEATHER}"
SEASONS = (
    "winter summer spring autumn snow snowy ice icy frozen frost leaf leaves bloom blooming blossom blossoms flower "
    "flowers pumpkin pumpkins harvest christmas halloween cold hot warm ski skis skiing swimming beach cherry scarf "
    "coat shorts swimsuit"
)
# Words of the technique that an image is made with.
STYLE = (
    "photo photos photograph photographs photography photographic photorealistic photographed painting painted "
    "sketch sketched drawing drawn illustration illustrated render rendering rendered cartoon comic anime manga "
    "watercolor watercolors watercolour oil canvas charcoal pencil ink 3d pixel vector style art artwork blender "
    "octane unreal cinematic lens camera bokeh 35mm 50mm 85mm kodak portra film f1 mm brush strokes print woodblock "
    "blueprint poster logo sticker claymation knitted paper monochrome grainy vaporwave synthwave impressionist "
    "pixar ghibli screenshot hyperrealistic realistic grain exposure focus raw dslr portfolio sepia lineart "
    "canon nikon eos fujifilm hasselblad engraving mosaic mural stained embroidery origami lego isometric poly"
)
# Words of the light of an image: an item of light stays where another speaks of it.
LIGHTS = (
    "sun sunlight sunlit sunset sunrise moon moonlight moonlit night neon candle candles candlelight lamp lantern lighting light "
    "lights lit glow glowing daylight day dark shadow shadows backlit hour noir spotlight flash"
)
WORN = "hat cap crown veil hair hand hands tattoo tattoos bow horns scarf wearing flower flowers strap coat jacket looking"
# What is told of the frame of an image: where it is seen from, and how much of it.
FRAME = (
    "portrait portraits headshot close closeup close-up body view shot angle macro profile torso bust waist upper half "
    "zoom zoomed selfie"
)
FACE = f"{FRAME} face facial eye eyes lips mouth nose smile smiling freckles makeup beard expression looking looks gaze cheeks"
# What can only be where the ground, plants or water are as they are.
WILD = (
    "sand sandcastle dune dunes wave waves surf surfboard surfboards surfer surfers swim swimming swims sea ocean "
    "shore coast snow ski skis skiing skier skiers snowboard snowboarder ice cactus crop crops wheat corn hay "
    "tractor boat boats canoe kayak dock pier penguin penguins"
)
ROOM = (
    "oven stove refrigerator fridge sink counter countertop counters cabinets cook cooks cooking bake bakes baking "
    "bed beds pillow pillows bathtub tub toilet shower towel teeth sofa couch fireplace television tv desk desks "
    "books bookshelf bookshelves blackboard chalkboard students teacher students cutting slices apartment house "
    "home dishes meal"
)

# Names that captions mostly write with a capital, and that are exchanged for names only.
CHARACTERS = (
    "batman | superman | =spiderman, =spider-man, =spider man | darth vader | yoda, =master yoda, =baby yoda | iron man, =ironman | "
    "harry potter | gandalf | =dumbledore | super mario, =mario | =luigi | sonic, =sonic the hedgehog | pikachu | shrek | =hulk, "
    "=the hulk | godzilla | king kong | homer simpson | =bart simpson | spongebob, =spongebob squarepants | mickey mouse | =donald "
    "duck | =bugs bunny | winnie the pooh | =kermit the frog, =kermit | the joker, =joker | wonder woman | =supergirl, =batgirl | "
    "=harley quinn | =catwoman | captain america | =thor | =deadpool | =wolverine | =thanos | =chewbacca | =r2-d2 | "
    "optimus prime | =bumblebee transformer | =goku | =naruto | =totoro | =link | =princess peach, =princess zelda | =lara croft | "
    "=indiana jones | james bond | sherlock holmes | =jack sparrow | santa claus, =santa | dracula | frankenstein, "
    "=frankenstein's monster | =chucky | =pennywise | =jason voorhees | =freddy krueger | =terminator, =the terminator | robocop | "
    "=gollum | =legolas | =aragorn | =frodo | =elsa | =cinderella | =snow white | =ariel | =garfield | =snoopy | =scooby doo | "
    "=squidward | =patrick star | =peter griffin | =rick sanchez | =walter white | =mona lisa, =the mona lisa | napoleon, "
    "=napoleon bonaparte | albert einstein, =einstein | abraham lincoln | =george washington | cleopatra | julius caesar | "
    "=jesus christ, =jesus | =buddha | =shakespeare, =william shakespeare | =elvis presley, =elvis | =charlie chaplin | =bruce lee | "
    "=marilyn monroe | =frida kahlo"
)
CITIES = (
    "in paris | in tokyo, =in kyoto, =in osaka, =in japan | in new york, ~in new york city, ~in nyc, =in manhattan, =in times square, "
    "=in chicago, =in los angeles | in venice, =in amsterdam | in dubai | =in london | in cairo, =in egypt | =in rome, =in italy | "
    "=in berlin | =in moscow, =in russia | =in india, =in mumbai | =in china, =in beijing, =in hong kong, =in shanghai | =in "
    "san francisco | =in mexico | in antarctica, =in alaska | in the sahara | =in hawaii | =in africa | =in iceland, =in norway, =in "
    "the alps, =in switzerland"
)
ARTISTS = (
    "by van gogh, ~by vincent van gogh, ~in the style of van gogh, ~by vangogh | by picasso, "
    "~by pablo picasso, ~in the style of picasso | by claude monet, ~by monet, ~in the style of monet | by hokusai, ~in the "
    "style of hokusai, ~by katsushika hokusai | by gustav klimt, ~by klimt, ~in the style of klimt | by andy warhol, ~in the "
    "style of andy warhol | by rembrandt, ~in the style of rembrandt, ~by caravaggio, ~in the style of caravaggio, ~by "
    "vermeer | by salvador dali, ~by dali, ~in the style of salvador dali, ~in the style of dali | by piet mondrian, ~by "
    "mondrian | by studio ghibli, ~in the style of studio ghibli, ~by hayao miyazaki, ~by ghibli | by edvard munch, ~by "
    "munch | =by greg rutkowski, =by artgerm, =by wlop, =by craig mullins, =by frank frazetta, =by ilya repin, =by alphonse "
    "mucha, =by alfons mucha, =by h r giger, =by hr giger, =by giger, =by beksinski, =by zdzislaw beksinski, =by moebius, =by "
    "makoto shinkai, =by simon stalenhag, =by syd mead, =by norman rockwell, =by edward hopper, =by james gurney, =by jeremy "
    "mann, =by rhads, =by peter mohrbacher, =by annie leibovitz, =by tim burton, =by wes anderson, =by leonardo da vinci, "
    "=by hieronymus bosch, =by bosch, =by ivan aivazovsky, =by thomas kinkade, =by loish, =by ilya kuvshinov, =by ruan jia"
)
NAMES = frozenset(re.findall(r"[a-z]\w+", f"{CHARACTERS} {CITIES} {ARTISTS}")) - frozenset(
    "in by of style the studio man woman mouse duck frog white star link sparrow bond captain snow doo bunny patrick potter".split()
)

# fmt: off
GROUPS = (
    # content: people
    Group("content", "person", "noun", "man, ~gentleman, ~guy | woman, ~lady",
          unless=f"{GENDERED} @child couple family parents"),
    Group("content", "young person", "noun", "boy | girl", unless=f"{GENDERED} @child couple family parents"),
    Group("content", "child", "noun", "~child, ~kid | man | woman",
          unless=f"{GENDERED} {BABY} parent parents @child @person"),
    Group("content", "baby", "noun", "~baby, ~infant | +puppy | +kitten | +doll", verbs="hold carry cradle",
          unless="high eating eats hands diaper crawling bottle crying stroller crib feeding"),
    Group("content", "worker", "noun", "police officer, ~policeman, ~cop | firefighter, ~fireman | nurse | doctor | "
          "chef | farmer | soldier | astronaut",
          unless=f"{COOKING} patient hospital scrubs stethoscope wheelchair uniform badge fire burning hose tractor "
          "hay crops cow cows barn vegetables field gun rifle helmet moon space rocket earth owner truck station"),
    Group("content", "office worker", "noun", "~businessman, =businesswoman | +clown | +robot | +chef",
          unless="suit tie"),
    Group("content", "hero", "noun", "knight | wizard | samurai | viking | pirate | ninja | cowboy | astronaut",
          unless="armor armour sword axe ship horse wand staff robe spell helmet hat katana lasso space moon "
          f"{GENDERED}"),
    Group("content", "royal", "noun", "king | queen", unless=f"bed size {GENDERED}"),
    Group("content", "machine man", "noun", "robot | alien | gnome | +clown | skeleton",
          unless="metal mechanical laser"),
    Group("content", "stage artist", "noun", "~magician, =juggler, =acrobat | clown | robot"),
    Group("content", "trade", "noun", "=chef, =cook, =baker | =waiter, =waitress | =carpenter | =mechanic | =nurse, "
          "=doctor | =teacher | =gardener | =customer | =scientist | =engineer | =barber | =painter | =cashier | "
          "=bartender | =photographer | =farmer | =businesswoman | =businessman | +robot | +child",
          unless=f"{GENDERED} beard apron uniform suit children students @robot @child hair"),
    Group("content", "people together", "noun", "tourist, ~visitor | +soldier | +monk | +clown | student | "
          "businessman", unless="camera cameras classroom teacher safari school map backpack desks beach suit"),
    Group("content", "family pair", "phrase", "mother and daughter, ~mother and son | father and son, ~father and "
          "daughter", unless="he him his she her hers dress dresses"),
    # content: animals
    Group("content", "pet", "noun", "cat, ~kitten | dog, ~puppy | rabbit, ~bunny",
          unless="stick throwing throws leash frisbee bark barks barking fetch tabby whiskers meow purr collar paw "
          "paws walks leaps leap catches wag wagging wags @hamster bone"),
    Group("content", "hamster", "noun", "hamster | guinea pig | hedgehog | mouse",
          unless="keyboard computer monitor laptop desk wheel quills spines cheese tail"),
    Group("content", "livestock", "noun", "cow, ~bull | horse, ~pony | sheep, ~lamb | goat | donkey",
          unless="ride rides riding rider riders saddle saddles saddled pull pulls pulling pulled cart carriage "
          "gallop gallops galloping jockey race races racing jump jumps jumping milk milking wool shear sheared "
          "mane horn horns hoof plow polo cowboy leash rear rearing trot trots trotting udder shepherd wagon plough "
          "knight cowboy samurai king queen prince princess statue bulls unicorn rodeo"),
    Group("content", "mount", "noun", "horse | donkey | camel", verbs="ride lead",
          unless="@mount mane hump polo jockey race"),
    Group("content", "pig", "noun", "pig, ~piglet, ~hog | +goat | +cow",
          unless="mud snout wings flock ride rides riding"),
    Group("content", "camel", "noun", "camel | +horse | +donkey", verbs="ride lead", unless="hump humps saddle "
          "desert"),
    Group("content", "savanna animal", "noun", "elephant | giraffe | zebra | rhino, ~rhinoceros | hippo, "
          "~hippopotamus | buffalo",
          unless="trunk trunks tusk tusks neck necks stripe stripes striped mane horn horns leaves ride rides "
          "riding"),
    Group("content", "big cat", "noun", "lion | tiger | leopard | cheetah | jaguar, ~panther",
          unless="mane stripe stripes striped spots spotted cub cubs pride"),
    Group("content", "forest animal", "noun", "bear | wolf | deer | fox | moose | boar",
          unless="antler antlers cub cubs howl howls howling paw paws den hump hibernate tail fish salmon honey "
          "fawn herd pack climbs climbing wearing scarf reading tea crosses"),
    Group("content", "bear", "noun", "brown bear, ~grizzly bear | black bear | ~polar bear",
          unless="snow ice iceberg snowy"),
    Group("content", "dog breed", "noun", "=golden retriever, =labrador | dalmatian | husky | poodle | =german "
          "shepherd | =bulldog | =beagle | =corgi | =greyhound", unless="fur snow sled"),
    Group("content", "small animal", "noun", "squirrel | hedgehog | raccoon | beaver | mouse",
          unless="keyboard computer monitor laptop desk acorn acorns nut nuts cheese tree branch climbs climbing "
          "climb tail bushy dam spines"),
    Group("content", "monkey", "noun", "monkey | gorilla | raccoon | squirrel",
          unless="swings swinging hangs hanging tail"),
    Group("content", "sea animal", "noun", "dolphin | whale | shark | seal",
          unless="fin fins tail teeth wing beach aquarium spout ball"),
    Group("content", "reef animal", "noun", "octopus | jellyfish | crab | sea turtle | lobster | starfish",
          unless="arms"),
    Group("content", "bird of the air", "noun", "eagle | owl | parrot | crow, ~raven | hawk | pigeon, ~dove",
          unless="feathers feathered feeding feed park beak talons wings wing prey flock scarecrow white"),
    Group("content", "small bird", "noun", "sparrow | hummingbird | ~robin | canary | ~bluebird",
          unless="nectar hover hovers hovering feeder beak wing wings nest"),
    Group("content", "water bird", "noun", "duck, ~duckling | swan | goose | pelican | flamingo",
          unless="feather feathers beak neck leg legs wing wings rubber one-legged"),
    Group("content", "sea bird", "noun", "seagull, ~gull | pelican | cormorant", unless="beak wing wings"),
    Group("content", "poultry", "noun", "chicken, ~hen | duck | goose | turkey",
          unless="egg eggs coop fried grilled roast"),
    Group("content", "rooster", "noun", "rooster | goose | turkey | peacock", unless="comb crow crows egg eggs"),
    Group("content", "big bird", "noun", "ostrich | emu | flamingo | peacock", unless="neck feathers tail"),
    Group("content", "insect", "noun", "butterfly | bee, ~bumblebee | dragonfly | ladybug, ~ladybird | grasshopper "
          "| spider | snail | beetle", unless="web wing wings shell hive honey nectar pollen thread @insect spots "
          "bug"),
    Group("content", "reptile", "noun", "frog | lizard | turtle, ~tortoise | snake | crocodile, ~alligator",
          unless="shell leg legs jump jumps jumping coiled tail teeth pond tongue"),
    Group("content", "mythical animal", "noun", "dragon | unicorn | griffin | phoenix | dinosaur",
          unless="wing wings horn horns fire flames feathers costume tail tower knight made egg eggs mane scales "
          "perched"),
    Group("content", "wild animal", "noun", "panda | koala | kangaroo | sloth | penguin | otter | llama, ~alpaca | walrus | "
          "+gorilla | platypus | anteater | armadillo | porcupine | badger | skunk | hyena | meerkat | capybara, ~capybaras | lemur",
          unless="@wild_animal stripes striped pouch bamboo ice flippers tail red tusks tusk spines"),
    Group("content", "fish", "noun", "=goldfish, =salmon, =trout, =catfish, =shark | +octopus | +sea turtle | +crab",
          unless="fin fins tail bowl tank fillet grilled sushi plate"),
    Group("content", "dinosaur", "noun", "=tyrannosaurus, =t-rex, =raptor, =velociraptor, =triceratops, =stegosaurus, =brontosaurus "
          "| +elephant | +giraffe", unless="dinosaur tail horns egg"),
    Group("content", "french bulldog", "noun", "=french bulldog, =pug, =chihuahua, =shiba inu, =terrier, =collie, =labrador retriever, "
          "=dachshund, =pitbull, =rottweiler | +cat | +fox", unless="leash collar dog dogs puppy bark fur"),
    Group("content", "fantasy being", "noun", "vampire | zombie | witch | elf, =half elf, =elven | angel | demon, =devil | ghost | "
          "mermaid | fairy | goblin, =orc, =troll | werewolf | skeleton | mummy",
          unless=f"wing wings horn horns ear ears fangs broom tail halo hat staff blood undead bones {GENDERED} hell sheet evil "
          "demonic angelic heaven rotting water sea underwater cauldron forest"),
    Group("content", "fighter", "noun", "=warrior, =gladiator, =soldier, =ranger, =paladin, =barbarian, =mercenary, =assassin, "
          "=sorcerer, =mage, =necromancer, =druid, =warlock, =priest, =monk | +ballerina | +astronaut | +clown | +chef",
          unless=f"armor armour sword swords axe shield gun bow weapon army battle war uniform spell magic staff {GENDERED} "
          "clothed wearing dressed costume"),
    Group("content", "princess", "noun", "princess, =queen, =goddess, =empress | +nurse | +ballerina | witch, =sorceress, "
          "=enchantress", unless="crown throne disney tiara kingdom castle prince king frog"),
    Group("content", "cyborg", "noun", "=cyborg, =android, =robot, =mecha, =mech | +gorilla | +knight | +skeleton",
          unless="metal metallic mechanical laser robotic machine cyber wires steel circuit parts gears"),
    Group("content", "character", "name", CHARACTERS, unless="costume cosplay dressed"),
    Group("content", "one girl", "item", "1girl, ~1 girl | 1boy, ~1 boy", unless=GENDERED),
    Group("content", "sex item", "item", "female, =woman | male, =man", unless=GENDERED.replace("feminine male female ", "")),
    # content: vehicles
    Group("content", "car", "noun", "car | truck | bus | van", verbs="drive park wash",
          unless="trunk seat seats door doors wheel wheels engine driver passenger passengers window windows "
          "headlight headlights hood roof trailer @car race racing convertible bumper chrome stop his her log logs "
          "load loads cargo mechanic license tire tires double decker fire toy"),
    Group("content", "tractor", "noun", "~tractor | =jeep | =limousine | +truck", unless="plow field wheel @car"),
    Group("content", "special car", "noun", "fire truck, ~fire engine | ambulance | police car | taxi, ~cab, "
          "~taxicab | school bus",
          unless="firefighter firefighters hose ladder fire siren patient officer police driver yellow red"),
    Group("content", "two-wheeler", "noun", "bicycle, ~bike | motorcycle, ~motorbike | scooter, ~moped",
          verbs="ride push park",
          unless="pedal pedals pedaling basket tandem cyclist cyclists engine helmet motor biker bikers seat wheel "
          "wheels mountain electric exercise chain track trick tricks race racing jump jumps jumping"),
    Group("content", "train", "noun", "train | tram, ~streetcar, ~trolley | bus",
          unless="rail rails track tracks railway railroad engine locomotive steam platform station smoke car cars "
          "toy set"),
    Group("content", "long train", "noun", "passenger train | freight train, ~cargo train", unless="passengers "
          "cargo"),
    Group("content", "boat", "noun", "sailboat | rowboat | canoe | motorboat | ferry", verbs="row paddle sail",
          unless="sail sails oar oars paddle paddles paddling mast deck engine row rowing motor passengers rows "
          "cars reeds crew anchor tied"),
    Group("content", "aircraft", "noun", "airplane, ~plane, ~aeroplane, ~airliner | helicopter | hot air balloon",
          unless="float floats floating runway takes taking takeoff land lands landing wing wings airport tarmac "
          "propeller trail trails jet pilot gate rise basket parked parking"),
    Group("content", "submarine", "noun", "=submarine | +rocket | +airplane | +tank",
          unless="water sea ocean underwater dive dives"),
    Group("content", "drone", "noun", "drone | +helicopter | +kite"),
    Group("content", "spacecraft", "noun", "spaceship, ~spacecraft, =ufo | satellite",
          unless="crash interior cockpit station"),
    Group("content", "airship", "noun", "airship, ~zeppelin | +pirate ship | +hot air balloon"),
    # content: furniture and household
    Group("content", "chair", "noun", "chair | stool | bench",
          unless="children people two three four several couple kids women men table tables desk office rocking "
          "wheel back legs arm garden @chair high cushion cushions"),
    Group("content", "sofa", "noun", "sofa, couch | armchair | +bed", unless="@bed cushions pillows seat remote"),
    Group("content", "surface", "noun", "table, =desk, ~dining table, ~coffee table, ~kitchen table | shelf | chair "
          "| windowsill | stool", after="on",
          unless="above wall bar @human set chair chairs top sit sits sitting drawer legs"),
    Group("content", "counter", "noun", "counter, ~countertop | +table | +shelf", after="on", unless="@human"),
    Group("content", "windowsill", "noun", "windowsill, ~window sill | +table | +shelf | +chair", after="on",
          unless="window"),
    Group("content", "lamp", "noun", "lamp | clock | vase | +candle",
          unless="cake building side tower wall still hang hangs hanging desk light lit glow glows glowing shade "
          "street @lamp"),
    Group("content", "clock", "noun", "clock | mirror",
          unless="tower shows show o'clock building side station hangs hang ticking wall time hands tower hour "
          "numerals look looks"),
    Group("content", "mirror", "noun", "mirror | clock",
          unless="reflection reflected selfie bathroom brushing brushes look looks looking trying hat front sink "
          "shaving combing hair elevator rear teeth"),
    Group("content", "nightstand", "noun", "nightstand, ~bedside table | +bookshelf | wardrobe, ~closet | dresser"),
    Group("content", "floor cover", "noun", "~doormat, =carpet, =rug | table | shelf", after="on",
          unless="@human @animal"),
    Group("content", "bedding", "noun", "pillow, ~cushion | blanket, ~quilt | towel",
          unless="bed sofa couch chair covered furniture velvet"),
    Group("content", "cutlery", "noun", "spoon | fork | knife",
          unless="stir stirring soup cutting cut slice slices butter"),
    Group("content", "dish", "noun", "bowl | cup, ~mug | =vase",
          unless="soup cereal coffee tea flowers drink fruit inside filled full eat eats eating fish goldfish "
          "swimming"),
    Group("content", "plate", "noun", "plate | +cup | +bowl",
          after="^ and , with holding holds carrying carries beside behind",
          unless="food eat eats eating sandwich full fries"),
    Group("content", "vessel", "noun", "bottle | jar | vase | teapot | kettle | pitcher, ~jug",
          unless="flowers lid tea pour pours pouring"),
    Group("content", "container", "noun", "box, ~crate | basket | bucket | suitcase | backpack | handbag, ~purse",
          unless="hiker hikers school inside filled full lid open opened closed bicycle water wheel picnic shop",
          verbs="pack"),
    Group("content", "kitchen machine", "noun", "microwave | toaster | kettle | =coffee maker, =coffee machine"),
    Group("content", "large appliance", "noun", "refrigerator, ~fridge | dishwasher | washing machine | stove",
          unless="pot pan soup cooking cook steaming magnets magnet door open food handle gas laundry"),
    Group("content", "bathroom fixture", "noun", "toilet | bathtub, ~tub | sink",
          unless="lid seat paper shower curtain bath tap faucet mirror dishes kitchen flush public"),
    Group("content", "electronics", "noun", "laptop | +camera | radio | tablet | telephone, ~phone, ~cell phone, "
          "~smartphone",
          unless="type types typing talk talks talking screen keyboard photo photos picture pictures call works "
          "working remote photographer selfie film @electronics desk"),
    Group("content", "screen part", "noun", "~mouse | printer | telephone",
          unless="cheese cat toy tail tea animal tiny", after="and a"),
    Group("content", "toy", "noun", "teddy bear | doll | toy car, ~toy truck | rubber duck | toy train",
          unless="drive driving"),
    Group("content", "toy in the air", "noun", "kite | balloon | drone",
          unless="string tail wind ceiling party birthday room", verbs="fly"),
    Group("content", "pen", "noun", "pencil | pen | paintbrush | crayon",
          unless="write writes writing draw draws drawing paint"),
    Group("content", "reading", "noun", "book, ~comic book | newspaper | magazine | +letter | map", verbs="read",
          unless="story bedtime shelf shelves library stack page pages bookshelf open treasure @reading"),
    Group("content", "hand tool", "noun", "hammer | screwdriver | wrench | saw", verbs="use",
          unless="nail nails screw board plank"),
    Group("content", "garden tool", "noun", "shovel | rake | broom", verbs="use",
          unless="leaves dig digs digging witch sand sweep sweeps sweeping"),
    Group("content", "weapon", "noun", "sword | axe | spear | dagger", unless="shield armor chopping wood bow "
          "sheath", verbs="wield swing raise"),
    Group("content", "string instrument", "noun", "guitar | violin | trumpet | saxophone | flute | accordion | "
          "banjo", verbs="play", unless="string strings bow case electric music mouth"),
    Group("content", "big instrument", "noun", "piano | cello | harp | drum set", verbs="play",
          unless="keys bow strings bench grand"),
    Group("content", "sport", "mass", "soccer | basketball | volleyball | tennis | baseball | badminton",
          after="play plays playing",
          unless="ball racket rackets bat goal goals net hoop field court player players team kick kicks"),
    Group("content", "board game", "mass", "chess | cards | dominoes", after="play plays playing",
          unless="board pieces"),
    Group("content", "held thing", "noun", "umbrella | lantern | balloon | flag",
          unless="rain under rainy raining light glow open beach", after="holds holding hold carrying carries carry"),
    Group("content", "jewel", "noun", "necklace | bracelet | earring | ring",
          unless="neck ears ear finger wedding wrist boxing"),
    # content: clothing that nobody wears
    Group("content", "garment", "noun", "jacket | dress | shirt | sweater | coat", unless="@human wearing wears"),
    Group("content", "shoe", "noun", "=slipper | boot | sandal",
          unless="@person @people wearing wears hiking running laces horse"),
    Group("content", "sneaker", "noun", "=sneaker | boot | sandal",
          unless="@person @people wearing wears hiking running laces"),
    # content: food
    Group("content", "fruit", "noun", "apple | banana | pear | peach | lemon | orange | mango | plum",
          verbs="eat pick slice peel cut bite",
          unless="juice peel peeled half bunch bunches tree pie cider slice slices sliced iced laptop yellow cut"),
    Group("content", "big fruit", "noun", "watermelon | pineapple | melon | coconut", verbs="eat slice cut",
          unless="slice slices palm tree"),
    Group("content", "berry", "noun", "strawberry | blueberry | cherry | raspberry | grape",
          unless="tree jam wine vineyard bunch cream stem"),
    Group("content", "bunch", "noun", "banana | grape | carrot", after="of", unless="wine vineyard peel yellow"),
    Group("content", "vegetable", "noun", "carrot | tomato | cucumber | potato | onion | eggplant | zucchini",
          verbs="eat pick slice peel cut chop grate",
          unless="cherry vine fries mashed chips bell sauce soup rabbit hot rings"),
    Group("content", "pumpkin", "noun", "pumpkin | watermelon | cabbage",
          unless="halloween carved carving pie lantern face spice"),
    Group("content", "green vegetable", "mass", "broccoli | asparagus | spinach | cauliflower | celery"),
    Group("content", "side dish", "mass", "rice | pasta | couscous", unless="field paddy bowl"),
    Group("content", "dish from the hand", "noun", "pizza | burger, ~hamburger, ~cheeseburger | sandwich | burrito "
          "| taco | salad | steak", verbs="eat order bite cook",
          unless="topped slice slices slicing bread cheese box bun sliced cut half patty oven dough fried"),
    Group("content", "bowl dish", "mass", "soup | salad | ramen | pasta | rice | cereal | oatmeal | =stew",
          after="of", verbs="eat",
          unless="spoon noodles dressing broth milk steam style chopsticks pot pan can stove steaming plate plates "
          "jar sack bag"),
    Group("content", "plate dish", "mass", "pasta, ~spaghetti | rice | salad | =sushi", after="of", verbs="eat",
          unless="meatballs sauce chopsticks bowl bowls jar sack bag pot"),
    Group("content", "cake", "noun", "cupcake | donut, ~doughnut | muffin", verbs="eat bake",
          unless="hole candle candles"),
    Group("content", "big cake", "noun", "cake | pie | pizza",
          unless="birthday wedding candle candles icing frosting layer layers cherry fork chocolate apple slice "
          "slices cheese tier tiers"),
    Group("content", "pastry", "noun", "croissant | bagel | pretzel | waffle | pancake", verbs="eat bake",
          unless="syrup pile stack"),
    Group("content", "snack", "mass", "=ice cream | popcorn | french fries | spaghetti", after="eat eats eating",
          unless="cone cones scoop shop fork"),
    Group("content", "drink", "mass", "water | milk | beer | lemonade | wine | iced tea",
          after="glass glasses drink drinks drinking",
          unless="bar grape lemon lemons mint river pond lake foam faucet tap fountain cow"),
    Group("content", "hot drink", "mass", "coffee | tea | hot chocolate, ~cocoa | milk",
          after="cup cups mug mugs drink drinks drinking pour pours pouring",
          unless="bean beans teapot teabag shop stand maker black party"),
    Group("content", "filling", "mass", "honey | jam | mustard | mayonnaise", after="jar jars",
          unless="bee bees berry strawberry"),
    # content: shapes
    Group("content", "solid", "noun", "cube | sphere | pyramid | cone | cylinder",
          unless="ice cream traffic egypt desert sugar rubik"),
    Group("content", "figure", "noun", "circle | square | triangle | +star | hexagon | +heart",
          unless="sky night city town market half sit sits stand standing stands sitting fans dance map movie hurry "
          "street people"),
    # content: buildings and streets
    Group("content", "building", "noun", "house | church | barn | castle | windmill | temple",
          unless="tree green dog greenhouse haunted walls roof door window windows room inside horse hay bell "
          "steeple tower blades light sea family interior glass jungle cliff address farm owner cross made bird "
          "horses wedding"),
    Group("content", "lighthouse", "noun", "lighthouse | castle | church", unless="light beam ships interior"),
    Group("content", "street thing", "noun", "traffic light | street lamp, ~streetlight | fire hydrant | mailbox | "
          "stop sign | parking meter | trash can", unless="stopped water lit light lights letter wait waits waiting"),
    Group("content", "town part", "noun", "~diner, =bakery, =cafe | bookstore | bank | pharmacy",
          after="past near by outside", unless="bread cake pastry pastries food"),
    Group("content", "garden part", "noun", "fountain | statue | gazebo",
          unless="water spray drink lion bronze marble park made"),
    # content: plants
    Group("content", "tree", "noun", "pine tree | oak tree | birch tree, =willow tree, =poplar tree, =maple tree, "
          "=fir tree", unless="leaf leaves acorn needles"),
    Group("content", "tropical tree", "noun", "palm tree | +pine tree | +oak tree | +birch tree",
          unless="beach tropical island coconut coconuts desert leaf leaves tropic ocean"),
    Group("content", "northern tree", "noun", "=pine tree | +palm tree",
          unless="snow snowy christmas winter mountain mountains frost needles"),
    Group("content", "flower", "noun", "rose | tulip | sunflower | daisy | lily | orchid",
          unless="petal petals thorn pond water gold compass seeds"),
    Group("content", "potted plant", "noun", "cactus | fern | bonsai tree", unless="desert spines"),
    # attribute: colours
    Group("attribute", "colour", "adjective", "red, ~crimson, ~scarlet | blue, ~navy, ~turquoise, ~teal | green | "
          "yellow, =mustard | purple, ~violet | orange | pink | black | white | brown, =beige, =tan | gray, ~grey",
          of="@coloured"),
    Group("attribute", "metallic colour", "adjective", "=silver | ~golden, ~gold | red | blue | black | white",
          of="@coloured"),
    Group("attribute", "colourful", "adjective", "=colorful, =colourful, =multicolored | +white | +gray | +brown",
          of="@building @other_building umbrella balloon kite tent flag banner dress scarf boat blanket shirt "
          "costume"),
    Group("attribute", "bathroom colour", "adjective", "white | black | pink", of="toilet bathtub sink"),
    Group("attribute", "hair colour", "adjective", "black, =dark | blond, ~blonde | brown | red | gray, ~grey | "
          "white | =silver | =pink | =blue | =purple | =green", of="hair", unless="bald"),
    Group("attribute", "beard colour", "adjective", "black | brown | red | gray, ~grey | white", of="beard mustache",
          unless="santa"),
    Group("attribute", "eye colour", "adjective", "blue | green | brown | =yellow | =purple | =red", of="eye"),
    Group("attribute", "fur colour", "adjective", "black | white | brown | gray, ~grey | =red | =blue | =green | "
          "=purple | =pink | =yellow | =golden", of="@furry"),
    Group("attribute", "cat colour", "adjective", "=orange, =ginger | +black | +white | +gray", of="cat kitten",
          unless="tabby"),
    Group("attribute", "cat pattern", "adjective", "=striped | +black | +white", of="cat kitten"),
    Group("attribute", "fox colour", "adjective", "red, =orange | white | gray, ~grey", of="fox", unless="its"),
    Group("attribute", "wolf colour", "adjective", "black | white | gray, ~grey", of="wolf", unless="its"),
    Group("attribute", "elephant colour", "adjective", "gray, ~grey | +brown | =purple | =pink | =blue | =green | "
          "=red", of="elephant rhino hippo"),
    Group("attribute", "bird colour", "adjective", "black | white | brown | gray, ~grey | blue | yellow | red | "
          "green", of="bird parrot"),
    Group("attribute", "swan colour", "adjective", "white | black", of="swan chicken hen rooster duck goose"),
    Group("attribute", "fantasy colour", "adjective", "red | blue | green | black | white | purple | golden",
          of="dragon monster"),
    Group("attribute", "flower colour", "adjective", "red | yellow | white | pink | purple | =blue | =orange",
          of="flower rose tulip orchid"),
    Group("attribute", "apple colour", "adjective", "red | green | yellow", of="apple"),
    Group("attribute", "pear colour", "adjective", "green | yellow", of="pear melon"),
    Group("attribute", "plum colour", "adjective", "=green | purple | yellow", of="plum"),
    Group("attribute", "grape colour", "adjective", "green | purple, =dark, =red", of="grape"),
    Group("attribute", "pepper colour", "adjective", "red | green | yellow", of="pepper bell_pepper"),
    Group("attribute", "leaf colour", "adjective", "green | yellow | red | orange | brown", of="leaf"),
    Group("attribute", "field colour", "adjective", "golden | green | ~brown", of="field meadow hill"),
    Group("attribute", "knitted", "adjective", "=knitted, =crocheted, =stuffed, =plush | +wooden | +plastic | "
          "+glass", of="toy"),
    Group("attribute", "icing colour", "adjective", "pink | blue | white | yellow | green", of="icing frosting"),
    Group("attribute", "water colour", "adjective", "turquoise, =blue, =clear | +brown | +gray", of="water sea "
          "ocean", unless="fish coral reef boat swimming sky"),
    Group("attribute", "flamingo colour", "adjective", "pink | +blue | +black", of="flamingo"),
    Group("attribute", "window light", "adjective", "glowing, =lit | dark", of="window",
          unless="sunlight day moonlight"),
    Group("attribute", "colour of a product", "item", "black, =matte black | white, =matte white | red | blue, "
          "=navy blue, =navy | =brown, =dark brown | =rose gold, =gold | =silver | =grey, =gray, =matte grey, "
          "=matte gray | green | =blue and white | =red and yellow | =black and white | =pink",
          unless="photo photography background hair portrait eyes"),
    Group("attribute", "wood shade", "adjective", "dark | light", of="wood"),
    # attribute: materials
    Group("attribute", "furniture material", "adjective", "wooden, ~wood | metal, ~metallic, ~steel | plastic",
          of="chair bench stool table desk shelf bookshelf"),
    Group("attribute", "sofa material", "adjective", "leather | velvet | ~fabric | ~wicker", of="sofa couch "
          "armchair"),
    Group("attribute", "dish material", "adjective", "wooden | ceramic, ~porcelain, ~clay | glass | =paper | metal, "
          "~metallic, ~steel | plastic", of="bowl cup mug plate vase tray teapot"),
    Group("attribute", "bottle material", "adjective", "glass | plastic | metal, ~steel, ~stainless steel",
          of="bottle jar water_bottle pitcher jug"),
    Group("attribute", "cutlery material", "adjective", "wooden | metal, ~steel, =silver | plastic", of="spoon fork"),
    Group("attribute", "box material", "adjective", "wooden | cardboard | metal | plastic", of="box crate"),
    Group("attribute", "basket material", "adjective", "wicker, ~woven | plastic | metal, ~wire", of="basket"),
    Group("attribute", "wall material", "adjective", "brick | stone | wooden | concrete", of="wall"),
    Group("attribute", "building material", "adjective", "wooden | stone | brick | ~concrete | ~glass",
          of="house building church barn cottage tower cabin hut lodge"),
    Group("attribute", "bridge material", "adjective", "wooden | stone | steel, ~metal, ~iron", of="bridge "
          "footbridge"),
    Group("attribute", "fence material", "adjective", "wooden | metal, ~iron | ~stone", of="fence gate railing rail"),
    Group("attribute", "door material", "adjective", "wooden | glass | metal, ~steel", of="door"),
    Group("attribute", "floor material", "adjective", "wooden | marble | concrete | tiled", of="floor"),
    Group("attribute", "roof material", "adjective", "~glass | ~thatched | ~tiled | wooden | metal, ~tin", of="roof"),
    Group("attribute", "counter material", "adjective", "wooden | marble | ~granite | steel", of="countertop "
          "counter", alone=True),
    Group("attribute", "statue material", "adjective", "bronze | marble | wooden | ~stone", of="statue bust "
          "sculpture"),
    Group("attribute", "path material", "adjective", "dirt, =muddy | ~gravel | cobblestone | paved, ~asphalt",
          of="road path street"),
    Group("attribute", "stair material", "adjective", "wooden | stone | concrete | metal | marble",
          of="stair step staircase"),
    Group("attribute", "pier material", "adjective", "wooden | concrete | stone", of="pier dock"),
    Group("attribute", "post material", "adjective", "wooden | metal | concrete", of="post pole"),
    Group("attribute", "boat material", "adjective", "wooden | metal | ~rubber", of="boat rowboat"),
    Group("attribute", "cart material", "adjective", "wooden | metal", of="cart wagon ladder sled birdhouse"),
    Group("attribute", "key material", "adjective", "~metal, ~metallic | golden | ~brass | silver", of="key"),
    Group("attribute", "toy material", "adjective", "wooden | plastic | metal",
          of="toy train_set toy_car toy_train toy_truck block"),
    Group("attribute", "ball material", "adjective", "rubber | leather | glass | ~wooden", of="ball"),
    Group("attribute", "bat material", "adjective", "wooden | metal, ~aluminum", of="bat baseball_bat"),
    Group("attribute", "pot material", "adjective", "copper | clay | ~iron | ~steel | ~silver | glass",
          of="pot kettle pan", alone=True),
    Group("attribute", "jacket material", "adjective", "leather | denim | ~wool, ~woolen | velvet", of="jacket vest"),
    Group("attribute", "cloth material", "adjective", "wool, ~woolen, ~woollen | silk | cotton | velvet",
          of="scarf blanket carpet rug dress shirt cushion"),
    Group("attribute", "glove material", "adjective", "leather | rubber | wool, ~woolen", of="glove boot shoe"),
    Group("attribute", "hat material", "adjective", "straw | leather | wool, ~woolen", of="hat"),
    Group("attribute", "bag material", "adjective", "leather | canvas | plastic | paper", of="bag handbag"),
    Group("attribute", "lamp material", "adjective", "brass | ceramic | wooden | glass",
          of="lamp desk_lamp table_lamp"),
    Group("attribute", "toaster material", "adjective", "~stainless steel | black | white | red",
          of="appliance refrigerator sink toaster kettle"),
    Group("attribute", "cutting board material", "adjective", "wooden | plastic | marble", of="cutting_board"),
    Group("attribute", "frame material", "adjective", "wooden | golden, ~gold, ~gilded | metal",
          of="frame picture_frame"),
    # attribute: size and shape
    Group("attribute", "size", "adjective", "small, ~little, ~tiny, ~miniature | large, big, ~huge, ~giant, "
          "~gigantic, ~enormous, ~massive, ~oversized", of="@sized"),
    Group("attribute", "tallness", "adjective", "tall | short", of="@tall"),
    Group("attribute", "length", "adjective", "long | short", of="@long"),
    Group("attribute", "width", "adjective", "wide, ~broad | narrow", of="@wide"),
    Group("attribute", "thickness", "adjective", "thick | thin",
          of="book rope branch candle wall blanket rug line fence"),
    Group("attribute", "depth", "adjective", "deep | shallow", of="water pool bowl stream"),
    Group("attribute", "steepness", "adjective", "steep | gentle", of="hill slope"),
    Group("attribute", "form", "adjective", "round, ~circular | square, =rectangular | oval", of="@formed"),
    Group("attribute", "glasses form", "adjective", "round | square", of="glasses eyeglasses"),
    # attribute: age and state
    Group("attribute", "age", "adjective", "old, ~elderly, ~senior, =aged | young", of="@adult",
          unless="child children kid kids teenage grandmother grandfather wrinkles wrinkled grey gray white beard"),
    Group("attribute", "age of a thing", "adjective", "old, ~ancient, ~antique, ~vintage, =retro, =medieval, "
          "=weathered, =classic | modern, =futuristic", of="@ageing",
          unless="victorian medieval ruins rusty dusty ancient ivy moss steam fantasy century peasant peasants"),
    Group("attribute", "old and futuristic", "adjective", "old, ~ancient, ~vintage, =retro, =medieval | futuristic, "
          "=modern", of="@vehicle city town building robot room kitchen train car house station skyscraper street",
          unless="victorian medieval ruins rusty dusty ancient ivy moss steam fantasy century peasant peasants "
          "stone wooden brick"),
    Group("attribute", "age of goods", "adjective", "old, =worn, ~antique, ~vintage | new, ~brand new", of="@goods",
          unless="torn dusty"),
    Group("attribute", "opening", "adjective", "open | closed, ~shut", of="@openable",
          unless="inside full filled through out into contains reading leads over"),
    Group("attribute", "mouth", "adjective", "open | closed", of="mouth eye", unless="tongue teeth"),
    Group("attribute", "fill", "adjective", "empty | full", of="@fillable", unless="with"),
    Group("attribute", "crowd", "adjective", "empty, ~deserted | crowded, ~busy", of="@crowdable",
          unless="@person @people @worker @child @car people crowd traffic cars crowds pedestrians one lone parked"),
    Group("attribute", "wetness", "adjective", "wet | dry",
          of="hair towel floor ground street road dog sand shirt sidewalk pavement",
          unless="rain raining rained rainy puddle puddles water sea ocean pool shower surfer swimming snow yellow "
          "and desert overcast"),
    Group("attribute", "dirt", "adjective", "clean | dirty, =muddy, =dusty",
          of="car truck shoe boot shirt plate dish window floor towel hand glass bicycle dog",
          unless="mud wash washing washes dust"),
    Group("attribute", "flame", "adjective", "lit | unlit", of="candle lamp lantern fireplace",
          unless="light glow glowing flame"),
    Group("attribute", "order", "adjective", "tidy, =clean, ~neat | messy, ~cluttered, ~untidy",
          of="room bedroom desk kitchen office living_room table workbench"),
    Group("attribute", "freshness", "adjective", "fresh | rotten", of="@fruit @vegetable @berry vegetable fruit",
          unless="basket farmer market"),
    Group("attribute", "ripeness", "adjective", "ripe | unripe", of="@fruit @vegetable @berry"),
    Group("attribute", "cooking", "adjective", "grilled | raw | fried, =roasted, =baked | smoked",
          of="chicken salmon fish steak salmon_fillet shrimp meat"),
    Group("attribute", "egg", "adjective", "fried | boiled | scrambled", of="egg"),
    Group("attribute", "bread", "adjective", "fresh | moldy", of="bread loaf"),
    Group("attribute", "surface", "adjective", "smooth, ~polished | rough, ~jagged", of="stone rock pebble",
          unless="water stream"),
    Group("attribute", "rust", "adjective", "rusty | shiny", of="car truck bicycle key can gate motorcycle train"),
    Group("attribute", "fold", "adjective", "folded | crumpled", of="towel blanket shirt napkin sheet"),
    Group("attribute", "taste of a cake", "adjective", "chocolate | strawberry | lemon | vanilla",
          of="cake ice_cream cupcake milkshake"),
    Group("attribute", "leaf state", "adjective", "fresh | dried, =dry", of="leaf flower",
          unless="fallen ground autumn"),
    # attribute: people
    Group("attribute", "mood", "adjective", "smiling, =happy, ~cheerful, ~joyful, =laughing | crying, sad, ~sobbing "
          "| angry, =frowning, ~furious", of="@adult boy girl child baby kid",
          unless="smile smiles expression laugh laughs laughing together hug hugging birthday playing"),
    Group("attribute", "animal mood", "adjective", "sad | happy | angry",
          of="dog cat puppy kitten monkey monster dragon robot clown"),
    Group("attribute", "smile", "verb", "smile | frown", unless="happy sad angry smiling laughing"),
    Group("attribute", "laugh", "verb", "laugh | cry", unless="happy sad angry smiling playing together joke"),
    Group("attribute", "expression", "adjective", "=calm, =serious, =neutral | happy, ~joyful, ~cheerful | sad | "
          "angry", of="expression face"),
    Group("attribute", "hair length", "adjective", "long | short", of="hair beard"),
    Group("attribute", "hair form", "adjective", "curly, ~wavy | straight", of="hair"),
    Group("attribute", "pattern", "adjective", "striped | checkered, ~checked, ~plaid | floral | polka dot | plain",
          of="@cloth", unless="striped checkered plaid floral polka patterned pattern flower pleated"),
    # attribute: clothing that somebody wears
    Group("attribute", "worn jacket", "noun", "jacket, =coat, =raincoat | sweater, ~cardigan | hoodie | vest",
          after="in wearing wears worn wear", verbs="wear",
          unless="rain sleeve sleeves rainy hood collar zipper underneath wetsuit life lab safety buttons trench"),
    Group("attribute", "worn shirt", "noun", "shirt, ~t-shirt | +hoodie | +sweater", after="in wearing wears wear",
          verbs="wear", unless="sleeve sleeves collar jacket coat vest tie suit over apron buttons suspenders under"),
    Group("attribute", "worn hat", "noun", "hat, ~cap, ~beanie, =top hat, =cowboy hat, =santa hat, =baseball cap, "
          "=witch hat, =straw hat, =chef hat, =party hat | +helmet | +crown | +headband",
          after="in wearing wears wear", verbs="wear",
          unless="brim feather bicycle motorcycle swim bike graduation @two-wheeler head"),
    Group("attribute", "worn suit", "noun", "suit, ~suit and tie, ~business suit, =tuxedo | +bathrobe | +tracksuit "
          "| +raincoat", after="in wearing wears wear", verbs="wear", unless="wedding groom diving swim"),
    Group("attribute", "worn trench coat", "noun", "=trench coat, =lab coat | +hoodie | +bathrobe | +raincoat",
          after="in wearing wears wear", verbs="wear", unless="rain laboratory hospital"),
    Group("attribute", "worn costume", "noun", "=dinosaur costume | pirate costume | lion costume | =superhero "
          "costume | =bear costume", after="in wearing wears wear", verbs="wear"),
    Group("attribute", "worn helmet", "noun", "helmet | +hat | +crown", after="in wearing wears wear", verbs="wear",
          unless="@two-wheeler bike bikes armor visor astronaut motorcycle ride rides riding race spacesuit"),
    Group("attribute", "worn scarf", "noun", "scarf | tie, ~bow tie, ~necktie | necklace",
          after="in wearing wears wear", verbs="wear", unless="suit neck"),
    Group("attribute", "worn dress", "noun", "dress, ~gown, ~sundress | +skirt | +coat", after="in wearing wears "
          "wear", verbs="wear",
          unless="wedding bride sleeve shirt jacket hem bottom top legs doll ballerina dancer dancers"),
    Group("attribute", "worn shoes", "noun", "boot | sandal | slipper", after="in wearing wears wear and",
          verbs="wear", unless="rubber laces snow rain hiking running"),
    Group("attribute", "worn sneakers", "noun", "=sneaker | boot | sandal | slipper",
          after="in wearing wears wear and", verbs="wear", unless="laces running"),
    Group("attribute", "worn trousers", "plural", "jeans | shorts | overalls | leggings | sweatpants",
          after="in wearing wears wear", verbs="wear"),
    Group("attribute", "worn glasses", "plural", "=glasses, =eyeglasses | +goggles | +sunglasses",
          after="with in wearing wears wear", verbs="wear"),
    Group("attribute", "worn sunglasses", "plural", "sunglasses | goggles | headphones", after="in wearing wears "
          "wear", verbs="wear", unless="ski swim"),
    Group("attribute", "worn headphones", "plural", "headphones | +sunglasses | earmuffs",
          after="in wearing wears wear", verbs="wear"),
    # attribute: style of the image
    Group("attribute", "style item", "item", "oil painting, ~oil on canvas | watercolor painting, ~watercolor, "
          "~watercolour | pencil sketch, pencil drawing | charcoal drawing | pixel art | 3d render, ~blender "
          "render, ~octane render | ~digital art, ~digital painting, ~concept art, ~matte painting, ~fantasy art | "
          "~anime, ~anime style | =cyberpunk style, =fantasy illustration, =digital illustration | ~comic style, "
          "~comic book style | ~ink wash painting, ~ink drawing | claymation | ~line art, ~detailed line art, "
          "~lineart | =photorealistic, =hyperrealistic, =photo, =product photo | ~woodblock print, ~ukiyo-e | "
          "~technical drawing, ~blueprint | ~renaissance painting | ~children's book illustration | stained glass | "
          "mosaic", unless=STYLE),
    Group("attribute", "style of", "phrase", "oil painting of | watercolor painting of, ~watercolor of | pencil "
          "sketch of, ~pencil drawing of | charcoal drawing of | pixel art of | 3d render of | ~photo of, "
          "~photograph of | ~digital painting of | ~cartoon of | ~ink drawing of | ~vector illustration of",
          unless=f"{STYLE} old vintage antique faded polaroid"),
    Group("attribute", "picture of", "phrase", "=illustration of, =drawing of, =painting of, =sketch of | "
          "+photograph of | +3d render of", unless=STYLE),
    Group("attribute", "art of", "phrase", "=concept art of, =digital art of, =artwork of, =digital illustration of, =render of, "
          "=rendering of, =anime drawing of, =comic of, =watercolour painting of, =digital painting of | +photograph of", unless=STYLE),
    Group("attribute", "kind of picture", "phrase", "the photo shows, ~the photograph shows | the painting shows, "
          "~the painting depicts | the drawing shows | the cartoon shows", unless=STYLE),
    Group("attribute", "monochrome", "phrase", "~black and white photo, ~black and white photograph, ~black and "
          "white picture | color photo", unless=STYLE),
    Group("attribute", "palette", "item", "=monochrome, =black and white | =vibrant, =vibrant colors, =colorful | "
          "pastel colors | neon colors | sepia tones", unless="film noir photo photography sepia background noir"),
    Group("attribute", "focus", "item", "sharp focus, ~in focus, =sharp, =sharp details, =tack sharp, =crisp, =crystal clear | out of "
          "focus, =soft focus, =blurry, =blurred, =motion blur", unless="bokeh blur blurry blurred depth soft focus sharp"),
    Group("attribute", "depth of field", "item", "=bokeh, =depth of field, =shallow depth of field, =blurred background, =blurry "
          "background | +everything in focus", unless="focus bokeh depth blur blurry blurred"),
    Group("attribute", "colours of an image", "item", "vibrant colors, ~vivid colors, ~vibrant colours, ~bright colors, =saturated, "
          "=saturated colors, =colorful, =colourful, =vibrant, =vivid | muted colors, ~muted colours, ~desaturated, =muted, "
          "=muted tones | monochrome, ~black and white, =grayscale, =greyscale, =b&w | pastel colors, ~pastel colours, "
          "=pastel, =pastel palette, =soft colors | +sepia tones",
          unless="colors colours color colour colorful monochrome sepia pastel vibrant vivid muted noir black rainbow"),
    Group("attribute", "contrast", "item", "high contrast, =strong contrast | low contrast", unless="contrast"),
    Group("attribute", "detail", "item", "=highly detailed, =intricate, =intricate details, =insanely detailed, =extremely detailed, "
          "=detailed, =high detail, =hyper detailed, =hyperdetailed, =ultra detailed, =very detailed, =ornate | +minimalist | "
          "+crude and simple", unless="photorealistic hyperrealistic photorealism realistic detail details detailed intricate intricately hyperdetailed ornate complex minimalist"),
    Group("attribute", "world item", "item", "cyberpunk, ~cyberpunk style, =futuristic, =sci-fi, =scifi, =sci fi, =synthwave | "
          "medieval, =medieval fantasy, =renaissance, =ancient | steampunk | art deco | stone age, =prehistoric",
          unless="sci fi scifi cyberpunk futuristic neon robot cyborg medieval knight steampunk roman victorian"),
    Group("attribute", "ornament item", "item", "=baroque, =baroque style, =gothic, =rococo, =art nouveau | minimalist, "
          "=minimalistic, =minimalism", unless="ornate intricate minimalist"),
    Group("attribute", "mood item", "item", "smiling, ~smile, =happy, =cheerful, =laughing | crying, =sad, =tears | angry, =furious, "
          "=angry expression", unless="smile smiling expression happy sad angry joyful"),
    Group("attribute", "skin", "phrase", "pale skin, ~fair skin | tanned skin, =dark skin", unless="white black"),
    Group("attribute", "artist", "artist", ARTISTS, unless="painter artists"),
    Group("attribute", "hair of a person", "adjective", "blonde, ~blond, ~blonde-haired | brunette | red-haired, ~redhead, "
          "~redheaded, =ginger", of="@person @people @fantasy @fantasy_being girl boy child", unless="hair haired"),
    Group("attribute", "eyes", "phrase", "eyes closed, ~closed eyes | eyes open, ~open eyes",
          unless="looking looks sleeping asleep"),
    Group("spatial", "distance of a shot", "phrase", "macro shot of, ~close-up shot of, ~close-up of, ~close up of, "
          "~closeup of | wide shot of, ~full body shot of", unless="face detail eye hands portrait lens"),
    Group("spatial", "portrait", "phrase", "=portrait of, =close up portrait of, =close-up portrait of, =head shot of, =headshot "
          "of, =portrait photo of, =portrait painting of, =portrait photograph of | +full body shot of", unless=FRAME),
    Group("spatial", "portrait from behind", "phrase", "=portrait of, =portrait photo of, =portrait painting of, =full body shot "
          "of, =full body portrait of | +rear view of", unless=FACE),
    Group("spatial", "full body", "phrase", "=full body portrait of, =full-body portrait of, =full body of, =full body photo of | "
          "+close-up portrait of", unless=f"{FRAME} shoes legs"),
    Group("spatial", "portrait item", "item", "=portrait, =headshot, =head shot, =closeup portrait, =upper body, =half body | "
          "+full body shot", unless=FRAME),
    Group("spatial", "full body item", "item", "=full body, =full-body, =full body portrait, =full body shot, =whole body | "
          "+extreme close-up", unless=f"{FRAME} shoes legs"),
    Group("spatial", "middle of an image", "item", "centered, =centred, =centered composition, =center composition, =perfectly "
          "centered, =central composition, =in the center, =centered in frame | off-center", unless="left right edge corner"),
    Group("spatial", "side that is seen", "phrase", "seen from behind, ~viewed from behind, ~from behind, =view from behind, =back "
          "view of, =back turned | seen from the front", unless=FACE),
    Group("spatial", "view of the side", "phrase", "side view of, =side profile of, =profile view of, =side portrait of | front view of "
          "| rear view of", unless=FACE),
    Group("spatial", "wide shot", "phrase", "=wide shot of, =wide angle shot of, =long shot of, =wide angle view of, =wide view of, "
          "=wide angle photo of, =panoramic view of | +extreme close-up of",
          unless=f"{FRAME} landscape panorama city valley mountains canyon wide"),
    Group("spatial", "macro", "phrase", "=macro photo of, =macro photograph of, =macro photography of, =close-up photo of, =close up photo "
          "of, =closeup photo of, =close-up photograph of | +wide shot of", unless=f"{FACE} lens macro"),
    Group("spatial", "upside down", "phrase", "=upside down, =upside-down | +right side up", unless="hang hangs hanging jump"),
    Group("spatial", "together", "phrase", "=hugging each other, =kissing each other, =facing each other, =holding hands, =shaking hands, "
          "=looking at each other, =embracing each other | +standing back to back", unless="sit sits sitting bed table lying"),
    Group("spatial", "symmetry", "item", "symmetrical, =symmetry, =symmetric, =perfect symmetry, =symmetrical composition | "
          "asymmetrical, =asymmetric", unless="face body features eyes left right"),
    Group("spatial", "angle", "item", "low angle, ~low angle shot, ~low-angle shot, ~low angle view, =view from below, =from below | "
          "high angle, ~high angle shot, ~high-angle shot, =view from above, =from above", unless="aerial overhead top"),
    Group("spatial", "angle of a shot", "phrase", "low angle shot of, ~low-angle shot of, ~low angle view of | high angle shot of, "
          "~high-angle shot of, =aerial view of, =drone shot of, =birds eye view of", unless="aerial overhead top"),
    Group("spatial", "isometric", "item", "=isometric, =isometric view, =isometric perspective | +front view", unless=FRAME),
    Group("spatial", "pose item", "item", "=dynamic pose, =action pose, =dynamic action pose, =fighting pose, =fighting stance, "
          "=action shot, =running, =walking, =jumping, =dancing, =in motion | +sitting | +lying down",
          unless="sitting standing lying pose stance kneeling horse"),
    Group("spatial", "rest item", "item", "sitting, =seated, =sitting down | standing, =standing up, =full body standing | lying "
          "down, =laying down, =lying, =laying", unless="pose stance kneeling chair throne bed sofa couch bench floor legs horse"),
    Group("spatial", "gaze item", "item", "looking at viewer, ~looking at camera, ~looking at the viewer, ~eye contact, =facing viewer "
          "| looking away, =looking to the side, =looking back, =looking over shoulder | +eyes downcast", unless="portrait"),
    Group("spatial", "dynamic pose", "phrase", "=in a dynamic pose, =in an action pose, =in a fighting pose, =in a fighting stance, "
          "=in action pose | +sitting on the ground | +lying on the ground", unless="sitting standing lying"),
    # spatial: relations
    Group("spatial", "relation to furniture", "relation", "~on | =on top of | under, ~underneath, ~beneath | next "
          "to, ~beside, =near, =by | behind | in front of", of="@support",
          by="@pet @hamster @toy @fruit @dish @container @solid @shoe @small", unless="@person @people @child"),
    Group("spatial", "relation on something", "relation", "~on top of | under | next to, ~beside | behind | in "
          "front of", of="@solid @container", by="@solid @small @fruit @container @dish @toy"),
    Group("spatial", "people and furniture", "relation", "~on | next to, beside, =near, =by | behind | in front of",
          of="@support", by="@human", unless="cross-legged legs floor"),
    Group("spatial", "relation to a big thing", "relation", "next to, beside, =by, =near, =in front of | behind",
          of="@upright", by="@human @animal @vehicle @thing hot_dog donut cake sandwich pizza burger bread"),
    Group("spatial", "relation to a thing", "relation", "next to, beside, =by, =near | behind | in front of",
          of="@thing @animal @human @vehicle",
          by="@human @animal @vehicle @thing hot_dog donut cake sandwich pizza burger bread"),
    Group("spatial", "relation to a mirror", "relation", "in front of | next to, ~beside", of="mirror",
          unless="selfie", by="@human @animal @shoe @small"),
    Group("spatial", "rug", "relation", "~under, ~underneath | next to | in front of",
          of="bed table sofa couch desk coffee_table", by="rug carpet"),
    Group("spatial", "top of a car", "relation", "~on top of, =on | +next to | +behind | +in front of | +under",
          of="car truck van", by="@pet"),
    Group("spatial", "inside a container", "relation", "~inside, =in | +next to | +behind | +in front of",
          of="@container @dish @vessel", by="@small @pet @hamster @fruit @toy @vegetable @cutlery @solid",
          unless="water made"),
    Group("spatial", "inside a vehicle", "relation", "~inside, =in | +next to | +behind | +in front of",
          of="@vehicle", by="@human @pet", unless="drive drives driving rides riding"),
    Group("spatial", "inside a building", "relation", "~inside | outside",
          of="house church barn castle cabin tent greenhouse building library museum"),
    Group("spatial", "inside a figure", "relation", "inside | outside", of="@figure @solid", by="@figure @solid"),
    Group("spatial", "height", "relation", "above, =over | below, =under",
          of="@figure @solid frame picture_frame mirror shelf clock table painting cloud sink sofa couch bed desk "
          "fireplace door window traffic_light entrance",
          by="@figure @solid clock lamp mirror painting sign street_sign picture frame lamp flag airship airplane "
          "helicopter shelf"),
    Group("spatial", "bridge", "relation", "on, =over, =across | under, ~beneath, =below", of="bridge footbridge",
          by="@human @car @two-wheeler @train", unless="stream water boat"),
    Group("spatial", "on a height", "relation", "~on | at the foot of, =below", of="hill cliff mountain",
          by="@building @other_building @human @animal tree"),
    Group("spatial", "on a mat", "relation", "~on | next to, ~beside",
          of="doormat rug carpet blanket towel pillow cushion napkin tray mat plate",
          by="@small @pet @cake donut doughnut shoe @cutlery @toy"),
    Group("spatial", "under a roof", "relation", "~under, ~beneath | +next to | +behind | +in front of",
          of="umbrella tent", by="@human @animal"),
    Group("spatial", "boat and bridge", "relation", "~under, =below, ~beneath | next to", of="bridge",
          by="@boat boat ship duck swan"),
    Group("spatial", "along or across", "relation", "~down, =along | across",
          of="street road city_street country_road dirt_road highway", by="@human @animal",
          unless="cars traffic side"),
    Group("spatial", "perched", "relation", "~perched on | +flying over",
          of="branch fence post roof wall pole line power_line wire railing",
          by="@bird_of_the_air @small_bird @sea_bird bird"),
    Group("spatial", "under a support", "relation", "~under, ~underneath, ~beneath | +on top of | next to | behind "
          "| in front of", of="@support", by="@animal @toy @small"),
    Group("spatial", "relation to it", "relation", "next to, beside | behind | in front of", of="it him her them",
          unless="hang hangs hanging runs follows"),
    Group("spatial", "inside with things", "relation", "~inside | +next to | +behind | +in front of", of="@vehicle",
          by="@small @toy @fruit lantern"),
    Group("spatial", "between", "relation", "~between | +behind | +in front of | +next to",
          of="@thing @animal @human @vehicle @big", by="@thing @animal @human @vehicle"),
    Group("spatial", "around", "relation", "~around | +behind | +in front of",
          of="table desk dining_table conference_table campfire fire bonfire", by="@human"),
    Group("spatial", "direction", "relation", "toward, towards | away from",
          of="@human @animal @big @vehicle camera viewer goal shore net driver fountain house cart door portal barn"),
    Group("spatial", "left or right", "side", "left | right",
          of="side corner hand of edge part end half bank lane arm leg foot shoulder wall panel page @end",
          after="the his her its their upper lower top bottom far on to from"),
    Group("spatial", "upper or lower", "side", "upper | lower", of="left right part half corner edge shelf deck",
          after="the"),
    Group("spatial", "top or bottom", "side", "top | bottom", unless="sea ocean",
          of="shelf row of left right corner edge drawer bunk part half step board", after="the"),
    Group("spatial", "foreground or background", "side", "foreground | background", of="@end", after="the"),
    Group("spatial", "front or back", "side", "front | back", of="row rows", after="the"),
    Group("spatial", "front or rear", "side", "front | rear", of="wheel door seat tire", after="the"),
    # spatial: phrases
    Group("spatial", "gaze", "phrase", "looking at the camera, ~looking directly at the camera, ~facing the camera, "
          "~looking at viewer, ~looking into the camera | looking away from the camera, ~facing away from the "
          "camera | +looking up | +looking down"),
    Group("spatial", "look", "phrase", "looks at the camera, ~looks directly at the camera, ~looks toward the "
          "camera, ~looks into the camera, ~faces the camera | looks away from the camera | +looks down | +looks up"),
    Group("spatial", "up or down", "phrase", "looking up | looking down", unless="sky ceiling stars moon"),
    Group("spatial", "up or down now", "phrase", "looks up | looks down"),
    Group("spatial", "facing", "phrase", "facing away from the viewer | looking toward the viewer, ~facing the "
          "viewer"),
    Group("spatial", "arrangement", "phrase", "in a row, ~in a line, ~in neat rows, ~lined up | in a circle, ~in a "
          "half circle, ~in a semicircle | in a pile, ~in piles, ~in a heap",
          unless="last first top bottom people end queue @human"),
    Group("spatial", "formation", "phrase", "in a row, ~in a line | in a circle, ~in a half circle, ~in a "
          "semicircle", unless="last first top bottom back front orchids"),
    Group("spatial", "side by side", "phrase", "side by side | back to back | face to face",
          unless="drinking walk walking ride facing"),
    Group("spatial", "stacked", "phrase", "stacked on | scattered on, ~spread on, ~lined up on", unless="cloud "
          "clouds"),
    Group("spatial", "middle", "phrase", "in the middle of the, ~in the center of the, ~in the centre of the, =at "
          "the corner of the | at the edge of the, ~on the edge of the", unless="night winter summer day crowd game"),
    Group("spatial", "middle of one", "phrase", "in the middle of a, ~in the center of a, =at the corner of a | at "
          "the edge of a, ~on the edge of a", unless="night winter summer day crowd game group"),
    Group("spatial", "side of a road", "phrase", "on the side of the, ~at the side of the | in the middle of the",
          unless="building house box face head"),
    Group("spatial", "on the floor", "phrase", "on the floor | +on the bed | +on the sofa",
          unless="office tiles bed sofa couch standing stands lie kitchen bathroom walk walking case marble gym "
          "classroom"),
    Group("spatial", "in her arms", "phrase", "in her arms | on her shoulders | on her back", unless="shoulder"),
    Group("spatial", "in his arms", "phrase", "in his arms | on his shoulders | on his back", unless="shoulder"),
    Group("spatial", "close or far", "phrase", "close to the | far from the"),
    Group("spatial", "seen from", "phrase", "from above | from below",
          unless="light lit sun hang hangs hanging spotlight"),
    Group("spatial", "arms", "phrase", "arms crossed, ~crossed arms, ~arms folded, ~folded arms | arms raised, "
          "~raised arms | arms outstretched, ~outstretched arms"),
    Group("spatial", "lid", "phrase", "lid up | lid down"),
    Group("spatial", "hands of a man", "phrase", "in his pockets, ~in his pocket | behind his back | on his hips"),
    Group("spatial", "hands of a woman", "phrase", "in her pockets, ~in her pocket | behind her back | on her hips"),
    Group("spatial", "middle alone", "phrase", "in the middle | +on the left | +on the right",
          unless="left right top bottom of row one edge"),
    Group("spatial", "carried", "phrase", "under his arm | on his head | over his shoulder", unless=WORN),
    Group("spatial", "carried by her", "phrase", "under her arm | on her head | over her shoulder", unless=WORN),
    Group("spatial", "along a street", "phrase", "down the street | across the street"),
    Group("spatial", "seat", "phrase", "seated around | standing around", unless="wheelchair"),
    Group("spatial", "seat at", "phrase", "seated at | standing at", unless="piano"),
    Group("spatial", "view", "phrase", "aerial view of, ~bird's-eye view of | street-level view of",
          unless="top-down island tropical river skyscrapers roofs rooftops harbor coast village"),
    Group("spatial", "view item", "item", "side view | top view, top-down view | front view | back view, rear view "
          "| ~from above | ~from behind | ~from below", unless="portrait face facing facade looking looks"),
    Group("spatial", "view of", "phrase", "top view of, ~overhead view of, ~top-down view of | side view of"),
    Group("spatial", "shot", "item", "close-up, ~close up, ~close-up portrait, ~closeup | ~wide shot, full body "
          "shot", unless="macro portrait lens"),
    # spatial: poses and motions
    Group("spatial", "pose", "verb", "sit | stand | ~lie, ~lay, =sleep | ~kneel, =crouch", by="@human",
          unless="leg legs feet wheelchair tie tied cane crutches yoga horse saddle skis skateboard bike surfboard "
          "back line writes write high"),
    Group("spatial", "pet pose", "verb", "sit | stand | lie, ~lay, =sleep, =rest",
          by="@pet fox bear monkey wolf raccoon squirrel", unless="legs hind leash cup stump"),
    Group("spatial", "dragon pose", "verb", "sit | stand | ~lie, =sleep", by="@mythical_animal robot"),
    Group("spatial", "herd pose", "verb", "stand | lie, ~lay, =sleep, =rest",
          by="@livestock @mount @savanna @big_cat @forest deer", unless="legs drinking"),
    Group("spatial", "walk", "verb", "walk | run", by="@human",
          unless="leash cane crutches dog dogs hand stroller up down race path"),
    Group("spatial", "pet walk", "verb", "walk | run, =trot, =gallop", by="@animal",
          unless="leash race bird birds wheel"),
    Group("spatial", "jump", "verb", "~jump over, ~leap over | crawl under | +lie next to", by="@human @pet",
          of="hurdle fence log wall obstacle"),
    Group("spatial", "ride an animal", "verb", "ride | lead | +stand next to",
          of="horse donkey camel pony elephant bull cow", by="@human"),
    Group("spatial", "ride a bicycle", "verb", "ride | push | +stand next to",
          of="bicycle bike motorcycle scooter motorbike", by="@human"),
    Group("spatial", "push", "verb", "push | pull",
          of="cart shopping_cart sled wagon suitcase stroller box wheelbarrow trolley bicycle", by="@human"),
    Group("spatial", "cross", "verb", "cross | walk along",
          of="road street path railroad_track country_road stream city_street", by="@human @animal",
          unless="bridge crosswalk stones intersection"),
    Group("spatial", "dive", "verb", "~dive into, ~jump into | +climb out of",
          of="pool swimming_pool water lake river sea ocean", by="@human @animal"),
    Group("spatial", "insect flight", "verb", "~land on, ~sit on, ~rest on, ~perch on | +fly over",
          of="flower leaf rose sunflower daisy", by="@insect"),
    Group("spatial", "hang on a wall", "verb", "~hang on | +lean against", of="wall",
          by="picture painting mirror poster frame map corkboard picture_frame"),
    Group("spatial", "walk a dog", "verb", "~walk | carry", of="dog puppy", by="@human", unless="leash leashes"),
    Group("spatial", "chase", "verb", "chase, ~run after | run away from", of="@animal @human car",
          by="@animal @human"),
    Group("spatial", "chase a ball", "verb", "~chase, ~run after | +lie next to", of="ball frisbee", by="@animal"),
    Group("spatial", "hold", "verb", "~hold | +stand next to",
          of="surfboard snowboard skateboard suitcase dog cat bicycle guitar broom shovel sign basket ladder "
          "backpack statue cello flag", by="@human",
          unless="sit sits sitting stand stands standing walk walks walking lie lies lying kneel kneeling seated up "
          "reading arms hand hands"),
    Group("spatial", "carry", "verb", "~carry | +drag",
          of="suitcase bag box sled basket backpack log sack chair ladder", by="@human",
          unless="head shoulder shoulders arm under back"),
    Group("spatial", "hang from", "verb", "~hang upside down from, ~hang from | +sit on | +stand on", of="branch",
          by="@animal @monkey koala sloth bird"),
    Group("spatial", "look through a window", "verb", "~look out of, ~look out | +look in through", of="window"),
    Group("spatial", "hug", "verb", "~hug, =pet, =cuddle | +stand next to | +sit next to",
          of="@human @animal teddy_bear", by="@human",
          unless="sit sits sitting lie lies lying stand stands standing her his"),
    Group("spatial", "feed", "verb", "~feed | +chase", of="@animal @water_bird @sea_bird pigeon bird", by="@human",
          unless="bottle hand fence sit sits sitting"),
    Group("spatial", "pull a cart", "verb", "~pull | +stand next to", of="cart carriage sled wagon", by="@animal"),
    Group("spatial", "kick", "verb", "kick | throw", of="ball soccer_ball football", by="@human", unless="foot "
          "soccer"),
    Group("spatial", "bird flight", "verb", "~perch on, ~sit on, ~stand on | +fly over",
          of="branch fence post roof wall pole line power_line wire railing",
          by="@bird_of_the_air @small_bird @sea_bird bird"),
    Group("spatial", "fly over", "verb", "~fly over, ~fly above | +land in", of="field meadow",
          by="@aircraft @bird_of_the_air drone bird"),
    Group("spatial", "fly over a building", "verb", "~fly over, ~fly above | +stand next to", of="@building",
          by="@animal @mythical_animal"),
    Group("spatial", "lean", "verb", "~lean against | +lie next to",
          of="wall brick_wall stone_wall tree fence tree_trunk", by="@two-wheeler ladder skateboard surfboard"),
    Group("spatial", "cross a bridge", "verb", "~cross | +stand under", of="bridge footbridge", by="@human"),
    # contextual: places
    Group("contextual", "outdoor place", "place", "in a park, ~at a park | on the beach, ~at the beach, ~on the "
          "sand | in a meadow, =in a field | in a parking lot | in a garden | on a rooftop | on a city street",
          unless=f"{WILD} flowers rows yard bench tents camp road bus car cars vegetables sunflowers wheat cows cow "
          "sheep corn ball football soccer baseball bat pitcher stadium"),
    Group("contextual", "wild place", "place", "in a forest, ~in the woods | in a desert | in a meadow, =in a field "
          "| in a jungle | in a canyon | in the snow | ~in a swamp",
          unless=f"{WILD} tree trees moss sunflowers flowers cactus log grass highway basket kite crash vegetables "
          "leaves vines ball football soccer baseball frosted frozen birds stream river"),
    Group("contextual", "through a place", "place", "through a forest, =through the woods | through a desert | "
          "through a field, =through a meadow | through a city | =through the snow",
          unless=f"{WILD} tree trees leaves moss sunflowers flowers cactus grass highway street streets buildings "
          "train car river path trail sunlight"),
    Group("contextual", "boat place", "place", "in a harbor, =at a dock, =at a pier | on the open sea",
          unless="dock docked pier bridge waves fog tied moored crane sail"),
    Group("contextual", "enclosure", "place", "in an enclosure, =in a zoo, =in a cage, =in a pen | +in a meadow | "
          "+in a desert | +on the beach", unless="zookeeper fence bars visitors glass zoo"),
    Group("contextual", "dungeon", "place", "in a dungeon, =in a castle | in a cave | +in a forest | +on a bridge | "
          "+on the beach", unless="throne torch torches walls chains"),
    Group("contextual", "moon", "place", "on the moon, =on mars | +on the beach | +in a desert | +in a park | +on a "
          "glacier", unless="crater craters earth space rocket full sky moonlight"),
    Group("contextual", "bus stop", "place", "at a bus stop | +at an airport | +in a hotel lobby | +at a ferry "
          "terminal", unless="bus buses street rain sidewalk road taxi car cars buildings traffic snow"),
    Group("contextual", "height", "noun", "cliff | hill | island | +beach", after="on",
          unless="clouds sea ocean waves below view grass valley water rock beach"),
    Group("contextual", "open land", "noun", "=field, =meadow | +desert | +parking lot", after="in across",
          unless="vegetables grass flowers cow cows sheep horses horse sunflowers tree trees wheat farm barn soccer "
          "football baseball harvest crop crops"),
    Group("contextual", "ground", "phrase", "in deep snow, =in the snow | in tall grass, ~in the tall grass | in "
          "the mud", unless="frosted snowy frozen winter rain ski snowboard flowers snowman fur mountain mountains"),
    Group("contextual", "way through", "phrase", "through tall grass, ~through the tall grass, =through the grass | "
          "through deep snow, ~through the snow | through the mud | through shallow water",
          unless="beach frosted winter rain ski skis flowers sea ocean river"),
    Group("contextual", "soft ground", "phrase", "on the grass, ~on grass, =on the lawn | in the snow | on the sand "
          "| +on the sidewalk",
          unless="flowers picnic tree trees winter beach sand flower field park golf soccer sled"),
    Group("contextual", "straw", "phrase", "in the straw, =in straw, =in the hay | +in the snow | +on the sand",
          unless="barn stable farm"),
    Group("contextual", "by something", "phrase", "by the fireplace, =by the fire, =in front of a fireplace | by "
          "the window | +by the swimming pool | +by the lake", unless="flames light view curtains snow"),
    Group("contextual", "room", "place", "in a kitchen | in a bedroom | in a bathroom | in a living room | in an "
          "office | in a garage | in a classroom | in a hallway, ~in a corridor", unless=ROOM),
    Group("contextual", "venue", "place", "in a cafe, ~in a coffee shop | in a restaurant | in a library | in a "
          "museum | in an office | in a train station, ~at a train station | in an airport, ~at an airport | in a "
          "supermarket, ~at a supermarket | in a bookstore",
          unless="coffee waiter waitress chef menu food eating eats dinner book books train trains airplane plane "
          "luggage suitcase groceries shelves painting statue desk runway platform tarmac airplanes passengers"),
    Group("contextual", "street", "place", "on the sidewalk | +on the beach | +in a park | +on a rooftop",
          unless="street streets car cars road cafe chalk umbrella parked sign bus"),
    Group("contextual", "street corner", "place", "on a street corner | +in a park | +on the beach | +in a subway "
          "station", unless="sign car cars lamp machine bus vending"),
    Group("contextual", "stage", "place", "on a stage | +on a rooftop | +on the beach | +in a park",
          unless="audience curtain curtains spotlight microphone orchestra lit grand rows piano singer band crowd "
          "theater"),
    Group("contextual", "subway", "place", "on the subway, ~on a train, ~on the train, ~on the bus, ~on a bus | +in "
          "a park | +on the beach | +in a waiting room"),
    Group("contextual", "yard", "place", "in a backyard, ~in a yard, ~in a front yard, =in a courtyard | +in a "
          "parking lot | +on the beach | +in a park", unless="home fence lawn grass snow"),
    Group("contextual", "home", "phrase", "~at home | +in a park | +at the office",
          unless="sofa couch bed kitchen room"),
    Group("contextual", "jazz club", "place", "in a jazz club, ~in a bar, ~in a nightclub, ~in a pub | +on a street "
          "corner | +in a park | +on the beach", unless="bartender drink drinks beer wine stool"),
    Group("contextual", "construction site", "place", "at a construction site | at a gas station | in a warehouse | "
          "in a parking lot | in a factory", unless="crane cars gas"),
    Group("contextual", "waterside", "noun", "=canal | =river | +beach | +country road, =dirt road | +highway",
          after="along", unless="boat boats houseboats bank water kayak swims"),
    Group("contextual", "landscape as a subject", "noun", "beach | forest | desert | meadow | =valley | +jungle",
          after="^",
          unless="wave waves sand palm sea ocean surf tree trees leaves umbrella umbrellas flowers grass highway "
          "bamboo pine birch people snow wildflowers dunes fog"),
    Group("contextual", "road", "place", "on the highway | on a dirt road, =on a country road | on a bridge | +in a "
          "parking lot", unless="river boat lane traffic corner"),
    Group("contextual", "hills", "place", "in the hills, in the mountains | +in the desert | +in the jungle",
          unless="snow ski slope peaks goat rocks"),
    Group("contextual", "landscape", "noun", "valley | city | forest | desert | meadow",
          after="above over across through",
          unless="tree trees bridge river sand dunes leaves buildings tower skyscrapers highway castle village snow "
          "grass flowers jungle"),
    Group("contextual", "city", "phrase", CITIES, unless="eiffel skyline pyramid pyramids canal"),
    Group("contextual", "outer space", "phrase", "=in space, =in outer space, =in the space, =floating in space | +in a forest | +on a "
          "beach | +on a city street", unless="spaceship spacecraft planet planets galaxy nebula stars star earth rocket orbit "
          "station suit alien astronaut satellite"),
    Group("contextual", "underwater", "phrase", "=underwater, =under water, =under the sea, =in the ocean, =in the sea, =in water, =in "
          "the water, =in a lake, =in a river, =in a swimming pool, =in a pool | +in a desert | +on a city street | +in a forest",
          unless="fish coral swimming swims swim diving diver boat boats ship ships bubbles mermaid submarine whale shark surf "
          "surfing sail sailing wave waves floating reef dolphin reflection photograph drowning wet splash"),
    Group("contextual", "sky place", "phrase", "=in the sky, =in the clouds, =above the clouds | +in a forest | +in a "
          "city street", unless="flying fly flies cloud clouds plane bird airplane balloon stars moon sun floating wings castle "
          "city planet jump jumping light lights fireworks"),
    Group("contextual", "hell", "phrase", "=in hell, =in heaven | +in a supermarket | +in a forest", unless="fire flames angel clouds"),
    Group("contextual", "in nature", "phrase", "=in nature, =in the wild, =in a jungle, =in the jungle, =in a rainforest, =in the "
          "rainforest, =in forest, =in a dark forest, =in the forest | +on a city street | +in a supermarket | +in a desert",
          unless="tree trees leaves plants vines jungle forest moss river waterfall stream log"),
    Group("contextual", "in town", "phrase", "=in the city, =in a city, =in the streets, =on the streets, =in the street, =on the street, "
          "=on a street, =in a street, =in a futuristic city, =in a cyberpunk city, =in a town, =in a village, =in an alley, =in a "
          "dark alley | +in a forest | +in a desert | +on a beach",
          unless="street streets building buildings skyscraper skyscrapers car cars traffic neon sidewalk window shop store road"),
    Group("contextual", "house place", "phrase", "=in a room, =in a dark room, =in the house, =in a house, =in a bar, =in a pub, =in a "
          "restaurant, =in a cafe, =in a coffee shop, =in a library, =in a museum, =in a laboratory, =in a lab, =in a church, =in a "
          "cathedral, =in a temple, =in a castle, =in a palace, =in a cave, =in the cave, =in a dungeon, =in a tavern, =in a hospital, "
          "=in prison, =in a prison, =in a classroom, =in a factory, =in a warehouse, =in a supermarket, =in a grocery store, =in a "
          "shopping mall, =in a gym, =in a spaceship, =in a studio, =in studio, =in a tunnel, =in a hallway, =in a nightclub, =in a "
          "club, =in a greenhouse, =in a stadium, =in an arena, =in a theater | +on a beach | +in a forest | +in a desert",
          unless=f"{ROOM} window door floor wall walls table chair bar drink drinks shelf shelves food doctor nurse patient spaceship "
          "machine machines equipment plants throne torch torches altar candles experiment"),
    Group("contextual", "mountain place", "phrase", "=in the mountains, =in mountains, =on a mountain, =on top of a mountain, =in the "
          "alps, =on a hill, =on a cliff, =in a valley | +in a subway station | +in a desert | +on a city street",
          unless="snow ski mountain mountains peak cliff house castle village valley river cabin waterfall view"),
    Group("contextual", "desert place", "phrase", "=in the desert, =in a desert, =in desert, =in a wasteland, =on mars, =on the moon, =on "
          "an alien planet | +in a forest | +on a city street",
          unless="sand dune dunes cactus camel camels crater rover rocket astronaut space spacesuit earth oasis"),
    Group("contextual", "snow place", "phrase", "=in the snow, =in snow, =in the arctic | +in a desert | +in a jungle",
          unless="covered dusted buried snow snowy winter ski ice penguin polar christmas santa cold fur frozen snowman"),
    Group("contextual", "stage place", "phrase", "=on stage, =on a stage, =on the stage | +on a beach | +in a forest",
          unless="concert band singer audience spotlight microphone curtain crowd singing guitar performing"),
    Group("contextual", "scene item", "item", "forest, =dark forest, =in forest, =deep forest, =jungle, =woods, =rainforest | desert, "
          "=desert landscape, =wasteland | beach, =tropical beach, =at the beach | city street, =city, =cyberpunk city, =cityscape, "
          "=in city, =city background, =urban, =street | =outer space, =space, =in space | snowy mountains, =mountains, =mountain "
          "landscape",
          unless="tree trees leaves sand waves sea ocean street buildings building skyscrapers neon snow planet galaxy stars mountain "
          "forest desert beach city spaceship"),
    Group("contextual", "room item", "item", "=indoors, =inside, =interior, =bedroom, =in bedroom, =kitchen, =office, =classroom, "
          "=bathroom, =living room, =laboratory, =library | +forest | +beach | +desert",
          unless=f"{ROOM} window door wall room interior furniture architecture design building office"),
    Group("contextual", "studio item", "item", "=studio background, =simple background, =plain background, =neutral background, =studio, "
          "=blank background, =solid background | +forest background | +city background", unless="background white black isolated"),
    # contextual: background
    Group("contextual", "background colour", "adjective", "white | black, =dark | blue | gray, ~grey | green | red "
          "| yellow | pink | ~purple | ~orange", of="background backdrop", unless="silhouette isolated line",
          alone=True),
    Group("contextual", "isolated background", "phrase", "on white background, ~isolated on white background | on "
          "black background", unless="black"),
    Group("contextual", "isolated on a colour", "phrase", "on white background, ~isolated on white background | +on "
          "red background | +on blue background", unless="red blue isolated"),
    Group("contextual", "background scene", "adjective", "forest | city | beach | desert | mountain | ~carnival | "
          "~halloween | ~snowy | ~jungle | ~castle", of="background backdrop", unless=f"{WILD} sand tree trees",
          alone=True),
    Group("contextual", "view", "phrase", "sea view, ~ocean view | mountain view | city view | garden view"),
    Group("contextual", "in the background", "phrase", "mountains in the background, =mountain in the background, "
          "~hills in the background | trees in the background, =forest in the background | skyscrapers in the "
          "background, ~buildings in the background | the ocean in the background, ~the sea in the background, "
          "~ocean in the background",
          unless="city snow slope skiing boat beach forest tree trees mountain building street"),
    # contextual: time, weather and light
    Group("contextual", "time of day", "phrase", "at night, ~at midnight, ~by night | at sunset, =at dusk, =at sunrise, =at "
          "dawn, =at twilight | at noon, ~at midday", unless=DAYTIME),
    Group("contextual", "sunrise", "phrase", "=at night, =at midnight | +at sunrise | =at noon, =at midday", unless=DAYTIME),
    Group("contextual", "part of day", "phrase", "early in the morning, in the morning, =in the evening, =in the afternoon | "
          "late at night", unless=f"{DAYTIME} late early"),
    Group("contextual", "item of time", "item", "night, ~nighttime, ~night time, ~midnight, =at night | sunset, =dusk, =golden "
          "hour, =sunrise, =dawn, =at sunset | midday, ~daytime, ~noon, =morning, =morning light, =daylight, "
          "=soft morning light, =afternoon light", unless=DAYTIME),
    Group("contextual", "light of day", "adjective", "=morning, =afternoon, =evening | +neon", of="light sunlight",
          unless=DAYTIME, alone=True),
    Group("contextual", "weather of a day", "adjective", "sunny, =bright, =clear | rainy, =stormy | snowy",
          of="day morning afternoon evening", unless=WEATHER, alone=True),
    Group("contextual", "fog of a day", "adjective", "sunny | foggy, ~misty", of="day morning afternoon",
          unless=WEATHER, alone=True),
    Group("contextual", "clouds of a day", "adjective", "sunny | cloudy, ~overcast", of="day morning afternoon",
          unless=WEATHER, alone=True),
    Group("contextual", "weather of a night", "adjective", "=clear, =starry | rainy, =stormy | snowy | foggy, ~misty",
          of="night", unless=WEATHER, alone=True),
    Group("contextual", "weather of a place", "adjective", "sunny, ~sunlit | rainy, =foggy, =misty | snowy, ~snow-covered, "
          "~snow covered",
          of="forest street city park village field road town alley garden path meadow lake",
          unless=f"{WEATHER} night dark blooming bloom flowers pine leaves", alone=True),
    Group("contextual", "slope", "adjective", "~snowy, ~snow-covered | grassy | rocky", of="slope mountain hill",
          unless=f"{WEATHER} glacier skiers peaks", alone=True),
    Group("contextual", "season", "phrase", "in winter, ~in late winter | in summer, ~in late summer, =in spring, =in autumn, "
          "=in fall", unless=SEASONS),
    Group("contextual", "season adjective", "adjective", "winter | summer, =spring, =autumn, =fall",
          of="day morning afternoon evening night forest landscape park scene", unless=SEASONS, alone=True),
    Group("contextual", "weather", "phrase", "in the rain, ~in heavy rain, ~in the pouring rain, =in the fog, =in thick fog | "
          "in the snow, ~in heavy snow, =in deep snow | in the sunshine, ~in the sun",
          unless="sun sunlight sunshine sunny snow snowy rain rainy rainbow fog foggy misty storm stormy lightning "
          "clouds cloudy overcast wet puddle puddles shadow shadows blizzard sunset ski skis fox frosted night moon "
          "moonlight snowman icy sunglasses winter summer"),
    Group("contextual", "rain strength", "adjective", "heavy, =pouring | light", of="rain traffic",
          unless="storm stormy flood", alone=True),
    Group("contextual", "fog strength", "adjective", "thick, =dense, =heavy | thin", of="fog mist",
          unless="hides hidden fade", alone=True),
    Group("contextual", "weather item", "item", "rain, =raining, =rainy, =heavy rain, =pouring rain, =thunderstorm, =storm | "
          "snow, =snowing, =snowy, =snowfall | =sunny, =sunshine, =sunlight, bright sunlight", unless=WEATHER),
    Group("contextual", "sky", "adjective", "blue, =clear, =clear blue, =bright blue, =cloudless | cloudy, ~overcast, =grey, "
          "=gray, =stormy, =dark, =rainy | =starry, =night | =pink, =pale pink, =purple, =orange, =red",
          of="sky", unless=SKY, alone=True),
    Group("contextual", "sea state", "adjective", "calm, =still | rough, =stormy, ~choppy",
          of="sea ocean lake bay water",
          unless="reflection reflected reflects swan canoe boat boats sits fog mist swim", alone=True),
    Group("contextual", "fog item", "item", "=fog, =foggy, =mist, =misty, =thick fog, =volumetric fog | +bright sunlight",
          unless=WEATHER),
    Group("contextual", "in or out", "item", "outdoors | indoors",
          unless="sky grass tree trees park beach room bed window"),
    Group("contextual", "light quality", "adjective", "soft, =gentle | harsh", of="light lighting",
          unless="shadow shadows", alone=True),
    Group("contextual", "flat light", "tail", "=dramatic lighting, =dramatic light, =moody lighting, =dynamic lighting, =dynamic "
          "light, =volumetric lighting, =volumetric light, =cinematic lighting, =cinematic light, =dramatic side light, =rim lighting, "
          "=sharp overhead cinematic lighting, =epic lighting, =chiaroscuro lighting, =high contrast lighting | flat lighting | "
          "+even white light", unless=LIGHTS),
    Group("contextual", "studio light", "tail", "studio lighting, ~bright studio lighting, =professional lighting, =natural "
          "lighting, =natural light, =soft natural light, =studio light, =realistic lighting | candlelight | moonlight | neon "
          "lighting, ~neon lights, ~neon light", unless=LIGHTS),
    Group("contextual", "soft light", "tail", "soft lighting, ~soft light, ~soft ambient light, =ambient lighting, =ambient light, "
          "=soft shadows, =diffused light, =diffuse lighting | harsh lighting, ~harsh light, =hard light, =hard lighting", unless=LIGHTS),
    Group("contextual", "warm light", "tail", "warm lighting, ~warm light, =warm hues, =warm tones, =warm colors | cold blue "
          "lighting, ~cold light, =cool tones, =cold colors, =cold lighting", unless=LIGHTS),
    Group("contextual", "direction of light", "item", "backlit, ~back lighting, ~backlighting, =backlight | front lighting, ~lit "
          "from the front", unless=LIGHTS),
    Group("contextual", "brightness", "item", "=dark, =low light, =dim lighting, =dimly lit, =very dark, =dark lighting, =gloomy | "
          "=bright, =bright lighting, =bright light, brightly lit | +pitch dark", unless=f"{LIGHTS} blue red green hair eyes"),
    Group("contextual", "lit place", "phrase", "dimly lit, ~softly lit, ~poorly lit | brightly lit",
          unless="spotlight dark shadow shadows"),
    Group("contextual", "under a sky", "phrase", "under a full moon, ~under the full moon, ~under the stars, ~under "
          "a starry sky | under the midday sun, ~under the sun | under dark clouds, ~beneath dark clouds | under a "
          "rainbow", unless=SKY),
)

# Nouns that are not exchanged themselves, by kind: what attributes, numbers, relations and verbs can belong to. Those of
# MASSES have no plural.
THINGS = {
    "player": "player | soccer player | football player | baseball player | tennis player | basketball player | "
        "volleyball player | hockey player | goalkeeper | batter | catcher | athlete | runner | swimmer | skier | "
        "snowboarder | surfer | skater | skateboarder | cyclist | biker | rider | jockey | boxer | gymnast | golfer "
        "| climber | hiker | jogger",
    "person": "boy | girl",
    "people": "person | pedestrian | tourist | worker | student | teacher | customer | passenger | commuter | "
        "friend | dancer | singer | musician | street musician | painter | artist | carpenter | engineer | "
        "veterinarian | fisherman | sailor | monk | shepherd | model | waiter | waitress | bartender | driver | bus "
        "driver | mechanic | gardener | photographer | scientist | businessman | businesswoman | vendor | butcher | "
        "baker | librarian | lifeguard | guard | pilot | drummer | guitarist | cook | instructor | teenager | adult "
        "| toddler | officer | reader | traveler | visitor | beekeeper | potter | florist | blacksmith | hunter | "
        "barista | barber | tailor | construction worker | street vendor | child | kid | baby | opponent | "
        "spectator | fan | clown | magician | juggler | acrobat",
    "couple": "couple | family | crowd | audience | team",
    "fantasy": "witch | princess | prince | elf | orc | warrior | goblin | dwarf | fairy | mermaid | vampire | "
        "zombie | ghost | angel | demon | monster | giant | troll | golem | peasant | ballerina | bride | groom | "
        "grandmother | grandfather | viking",
    "other animal": "animal | bird | fish | bat | pigeon | penguin | police dog | guide dog | kangaroo | koala | "
        "panda | sloth | llama | alpaca | otter | hare | calf | worm | ant | fly | mosquito | cub | gull | turkey | "
        "puppy | kitten | chick",
    "opening": "door | window | gate | shutter | curtain | blind",
    "part of a house": "wall | roof | floor | ceiling | fence | railing | chimney | tile | stair | step | staircase "
        "| cabinet | drawer | counter | countertop | balcony | porch | tower | arch | column | cupboard | faucet | "
        "fireplace | brick",
    "textile": "towel | tablecloth | napkin | sheet | quilt | bedspread | flag | banner | tent | sail | mat | "
        "carpet | rug | sleeping bag | picnic blanket | blanket | cushion | pillow | bathrobe | ribbon | sunshade",
    "wear": "hat | cap | scarf | glove | belt | tie | bow tie | suit | shirt | t-shirt | hoodie | jacket | coat | "
        "raincoat | sweater | cardigan | vest | dress | sundress | skirt | gown | robe | apron | jersey | helmet | "
        "crown | headscarf | bandana | wetsuit | swimsuit | costume | uniform | shoe | boot | sandal | sneaker | "
        "sock | backpack | beanie | turban | cape | cloak | mask | tutu | spacesuit | headband | collar | leash | "
        "necktie | blouse | kimono | bathing suit | slipper | poncho | sari | onesie | tracksuit | life jacket",
    "sport thing": "surfboard | snowboard | skateboard | frisbee | ball | kite | balloon | racket | tennis racket | "
        "bat | baseball bat | bow | basketball | football | soccer ball | tennis ball | hula hoop | trampoline | "
        "swing | slide | block",
    "paper": "arrow | book | notebook | newspaper | poster | sign | sticker | envelope | card | letter | map | "
        "magazine | label",
    "small thing": "candle | pen | pencil | key | coin | clock | lamp | desk lamp | table lamp | lantern | mirror | "
        "frame | picture frame | pot | pan | kettle | tray | button | toy | train set | toy car | umbrella | camera "
        "| telephone | phone | radio | watering can | wheelbarrow | ladder | bell | wine glass | wineglass | glass "
        "| cutting board | bouquet | cage | birdcage | birdhouse | spoon | scooter | stroller | cart | wagon | sled "
        "| briefcase | bag | lunch box | mailbox | globe | typewriter | calculator | keyboard | computer | monitor "
        "| television | remote control | rope | hose | bead | feather | shell | stone | rock | pebble | brush | "
        "comb | toothbrush | crate | barrel | bin | trash can | vase | statue | sculpture | bust | painting | tub | "
        "hammock | helmet | crystal ball | egg | chess piece | domino | dice | napkin | pumpkin | mushroom | loaf | "
        "pepper | bell pepper | cookie | donut | sock | sewing machine | water bottle | shelf | drum | appliance | "
        "rattle | screw | nail | boot | bin | can | cap | lid | switch | neon sign | traffic cone | birthday card | "
        "soap | sponge | bucket | sink",
    "furniture": "chair | bench | stool | table | desk | bed | sofa | couch | armchair | bookshelf | shelf | "
        "cabinet | wardrobe | dresser | nightstand | cradle | crib | rocking chair | dining table | coffee table | "
        "kitchen table | sideboard | workbench | conference table | picnic table | park bench | desk | cupboard",
    "other vehicle": "vehicle | jeep | convertible | sports car | race car | boat | ship | yacht | raft | fishing "
        "boat | toy boat | train | tram | bus | double decker bus | double-decker bus | submarine | ufo | spaceship "
        "| rocket | carriage | caravan | camper van | tractor | forklift | bulldozer | crane | jet ski | speedboat "
        "| cruise ship | subway train | wheelchair | plane | jet | tank | trailer | tuk-tuk | rickshaw | steam "
        "train | sled | tent",
    "other building": "building | house | tower | cottage | hut | cabin | shed | skyscraper | factory | hotel | "
        "shop | store | stall | market stall | warehouse | greenhouse | palace | mansion | farmhouse | lodge | tent "
        "| school | museum | library | station | mosque | pagoda | apartment | apartment building | monument | "
        "bridge | footbridge | statue | clock tower | water tower | gas station | beach hut | church | cathedral | "
        "treehouse | garage | stable | hangar | office building | diner | motel | villa",
    "big thing": "tree | christmas tree | bush | hedge | fountain | wall | door | window | gate | fence | sign | "
        "rock | boulder | pole | snowman | haystack | truck | bus | pillar | column | piano | refrigerator | "
        "curtain | vending machine | billboard | tent | counter | traffic light | street lamp | lamp post | mailbox "
        "| fire hydrant | statue | bookshelf | brick wall | stone wall | brick building | palm tree | pine tree | "
        "oak tree | birthday cake | whiteboard | blackboard | television | computer | fireplace | waterfall | stage",
    "place": "street | road | path | river | park | beach | bridge | room | bedroom | kitchen | bathroom | office | "
        "living room | hallway | alley | corridor | square | plaza | market | restaurant | cafe | stadium | station "
        "| platform | field | garden | meadow | lake | pond | forest | hill | slope | mountain | valley | town | "
        "village | city | lawn | yard | parking lot | playground | pool | swimming pool | pier | dock | harbor | "
        "island | cave | tunnel | canyon | cliff | desert | sidewalk | track | highway | railroad track | country "
        "road | dirt road | driveway | runway | church | theater | classroom | gym | subway car | train car | bay | "
        "canal | bank | shore | cloud | pavement | ground | sand | sea | ocean | water | stream | city street | "
        "school | store | shop | camp | campsite | campfire",
    "plant": "tree | flower | plant | bush | leaf | branch | grass | potted plant | houseplant | vine | hedge | log "
        "| palm | tulip | fern",
    "part of clothing": "sleeve | collar | pocket",
    "more things": "corkboard | street sign | entrance | sack | stick | power line | wire | line | tree trunk | "
        "bonfire | fire | hurdle | obstacle | goal | net | portal | post | rail | shield | shopping cart | wall "
        "clock | wave | trunk | picture | metal rail | viewer | dish",
    "part of a body": "beard | mustache | eye | mouth | tail | face | expression | leg | arm | hand | foot | ear | "
        "wing | horn | tongue | nose | finger | paw | head | shoulder | knee | tooth | lip",
    "food": "steak | egg | vegetable | fruit | pepper | bell pepper | grape | milkshake | cupcake | cookie | potato "
        "| french fry | noodle | loaf | tomato | hot dog | salad | sausage | cake | pie | dumpling | pastry | fish",
    "scene": "background | backdrop | light | sun | day | morning | afternoon | evening | night | landscape | scene "
        "| sky",
}
MASSES = {
    "stuff": "bread | meat | chicken | salmon | salmon fillet | shrimp | icing | frosting | ice cream | hair | skin "
        "| fur | grass | sand | water | snow | lighting | sunlight | sunshine | light | rain | traffic | fog | mist "
        "| backlight | wood | cake | sky | toast",
}

# What groups refer to with @: a class stands for its kinds, and a kind for its nouns; `!` takes nouns out.
CLASSES = {
    "human": "@person @child @worker @office_worker @hero @royal @stage_artist @player @people @couple @fantasy "
        "baby infant @machine_man",
    "adult": "@person @worker @office_worker @hero @royal @stage_artist @player @people @fantasy @couple !boy !girl "
        "!child !kid !baby !toddler !infant !teenager !giant !monster !ghost !crowd !audience !team !family "
        "!student !fairy !mermaid !troll !golem !puppy !kitten !doll !elf !angel",
    "animal": "@pet @hamster @livestock @mount @pig @camel @savanna_animal @big_cat @forest_animal @small_animal "
        "@monkey @poultry @rooster @big_bird @water_bird @other_animal !fish !bat !fly !ant !worm !mosquito",
    "vehicle": "@car @tractor @special_car @train @long_train @boat @aircraft @other_vehicle @two-wheeler @drone "
        "@spacecraft @airship",
    "savanna": "@savanna_animal",
    "forest": "@forest_animal",
    "furry": "cat kitten dog puppy rabbit bunny horse pony cow goat donkey pig hamster mouse bear monkey",
    "support": "chair stool bench table desk bed shelf box crate dining_table coffee_table kitchen_table nightstand "
        "sofa couch armchair picnic_table park_bench bookshelf",
    "small": "lamp clock vase candle book notebook pen pencil cup mug bowl plate bottle teapot kettle jar spoon "
        "fork knife key shoe boot hat laptop camera radio telephone phone tablet toy ball balloon basket bucket "
        "suitcase backpack bag handbag umbrella lantern pot pan tray coin newspaper magazine toaster microwave "
        "globe box glass",
    "thing": "lamp clock mirror notebook @street_thing @dish @vessel @container @kitchen_machine @electronics @toy "
        "@pen @reading @hand_tool @garden_tool @weapon @string_instrument @fruit @big_fruit @solid @small_thing "
        "@furniture @chair @sofa @sport_thing @cutlery @pumpkin @shoe !sink !lid !switch !fireplace !screw !nail "
        "!cap !hose !rope !button !bead !appliance !water_bottle !label !letter !shelf !painting !tub !swing !slide "
        "!rattle !dice !soap !bin !can !stone !mirror !map",
    "upright": "@big !wall !door !window !gate !fence !curtain !brick_wall !stone_wall !billboard !whiteboard !blackboard "
        "!television !fireplace !waterfall !stage !counter !mirror",
    "big": "@big_thing @building @other_building @tree !brick !shed",
    "coloured": "@car @tractor @special_car @train @long_train @boat @two-wheeler @aircraft airship @other_vehicle "
        "@chair @sofa @bench @bedding @opening @textile @wear @garment @shoe @sport_thing @paper @dish @container "
        "@solid @figure @furniture @building @other_building @worn_jacket @worn_shirt @worn_hat @worn_helmet "
        "@worn_scarf @worn_dress @worn_shoes @worn_trousers @part_of_a_house @toy @pen @toy_in_the_air @held_thing "
        "kite !ufo !monument !mirror !submarine !statue !fireplace !chimney !arch !greenhouse !map !letter !stair "
        "!brick !waterfall !swing wheelbarrow ladder candle clock lamp desk_lamp table_lamp lantern frame "
        "picture_frame pot kettle tray umbrella watering_can telephone phone radio bag briefcase mailbox robot "
        "fence wall door fire_hydrant button rope @car helmet bell birdhouse barrel trash_can vase bead drum bottle "
        "jar teapot @bench bucket crate crystal_ball typewriter stroller cart wagon sled balloon microwave toaster "
        "keyboard house wine_glass refrigerator stage jeans shorts overalls leggings sweatpants backpack suitcase "
        "guitar computer neon_sign traffic_cone",
    "sized": "@car @tractor @special_car @train @long_train @boat @aircraft @other_vehicle @furniture @chair @sofa "
        "@dish @vessel @container @toy @building @other_building @pet @small_animal @livestock @mount "
        "@savanna_animal @big_cat @forest_animal @reptile @insect @mythical_animal @sea_animal @water_bird bird "
        "animal fish monster robot alien tree bush rock stone boulder statue fountain mirror clock lamp candle "
        "window door sign table poster flag tent umbrella balloon kite ball box pot pan tray bell lantern drum "
        "painting frame picture_frame picture wall_clock crowd room bedroom kitchen bathroom garden park pond lake "
        "island village town cave pool hat backpack bag suitcase wave cloud pumpkin watermelon pizza cake sandwich "
        "burger cookie cupcake @solid @figure cabinet screwdriver shovel sword axe @plant eye !jet_ski !wheelchair",
    "tall": "@tree @building tower lamp candle glass fence ladder man woman statue vase chimney cactus @plant grass "
        "hedge lighthouse boy girl pole column bush bookshelf cabinet",
    "long": "dress skirt coat tail rope pier scarf table bench ladder hallway corridor train tunnel bridge road "
        "sleeve ribbon hallway wall",
    "wide": "street road path river bridge hallway alley corridor staircase valley hat sidewalk canal bed ribbon "
        "window door city_street stream country_road",
    "formed": "table mirror plate window clock rug cake frame sign box tray pillow cushion picture_frame carpet "
        "pool lamp cookie shield dining_table coffee_table !lamp",
    "ageing": "@car @tractor @train @boat @two-wheeler @aircraft @other_vehicle @building @other_building "
        "@furniture city town village street kitchen library bathroom bedroom room living_room lamp clock telephone "
        "phone camera radio typewriter computer robot temple castle church station ship theater school !tent "
        "!submarine !ufo !hut !cave !cradle !crib !sled !statue !beach_hut !shed !spaceship !rocket !treehouse",
    "goods": "book shoe boot hat coat jacket suitcase bag toy backpack guitar violin sofa chair table car "
        "bicycle house building lamp teddy_bear doll",
    "openable": "door window gate umbrella book notebook suitcase box laptop drawer curtain shutter bag shop "
        "briefcase can",
    "fillable": "bowl glass cup mug bottle jar box basket bucket shelf bag suitcase cart wineglass wine_glass plate "
        "barrel shopping_cart cage !plate !shelf !cage",
    "crowdable": "street road beach platform plaza restaurant cafe stadium park market hallway station classroom "
        "alley bridge highway subway_car train_car parking_lot city_street square theater",
    "cloth": "shirt dress skirt tie scarf sweater blanket towel tablecloth curtain pillow cushion sofa armchair rug "
        "umbrella quilt apron sock picnic_blanket coat bag vest cardigan blouse",
}

# Figures that may stand beside a landmark though a preposition stands before them: "a man with a dog in a car".
LOOSE = "@human @animal @wear hair beard"

# Kinds of which there may as well be several.
MANY = (
    "@human @animal @vehicle @thing @insect @reptile @mythical_animal @sea_animal @sea_bird @bird_of_the_air "
    "@small_bird bird flower balloon kite @street_thing @tree @building umbrella tent @other_building "
    "@large_appliance !lighthouse !bridge !footbridge !gas_station !station !school !library !museum !crowd "
    "!audience !team !couple !family"
)

# Things of which somebody uses one: subjects beside them stay alone.
ALONE = (
    "@two-wheeler @wear @worn_hat @worn_suit @worn_trench_coat @worn_costume @worn_glasses @worn_sunglasses "
    "@worn_headphones @worn_trousers @electronics @string_instrument @chair"
)

# Words beside which a person or an animal stays alone, and adjectives of what is alone.
SOLO = "ride rides riding smoking smokes skateboard surfboard snowboard surfing unicycle pipe selfie"
SINGLE = "lone lonely single solitary only"

# Adjectives that say nothing which an exchange of the noun could turn into nonsense.
ADJECTIVES = (
    "beautiful cute lovely lone lonely single pretty dark light bright pale deep elegant majestic cozy friendly "
    "strange other nearby shiny glowing colorful colourful detailed whole brave magical mysterious shirtless "
    "barefoot fat sleeping chubby fluffy furry adorable giant famous handsome gorgeous quiet local typical simple "
    "real live"
)

# Words before a colour, and the colours that they suit.
SHADES = {
    "dark": "red blue green purple brown gray orange",
    "light": "blue green gray brown pink purple yellow",
    "bright": "red blue green yellow orange pink purple",
    "pale": "blue green yellow pink purple",
    "deep": "red blue green purple",
    "soft": "blue green yellow pink purple",
    "pastel": "blue green yellow pink purple",
    "neon": "blue green yellow pink orange red",
}

# Verbs that captions use. The second list holds those whose form in -s is rather a noun after another noun.
VERBS = (
    "sit stand lie lay kneel crouch lean sleep run leap climb crawl drive fly swim dive float sail paddle skate "
    "glide hover take pull push carry hold hang wear look gaze stare reach eat chew bite graze bake pour stir serve "
    "read write draw type talk speak sing smile laugh cry hug kiss hit throw catch toss bounce fight enter leave "
    "exit pass approach follow chase lead wait stop move travel hurry bend grow bloom surround overlook span rise "
    "fall shine burn reflect depict feature display contain include have wash clean sweep mow dig gather load "
    "unload build fix repair measure examine inspect adjust use try make put give receive buy sell pay help teach "
    "listen learn attach knit sew blow breathe peck perch bark howl roar gallop pose squat balance juggle tap touch "
    "grab grip lift raise lower do go come get see ask keep play seem appear begin wander stroll relax meditate "
    "practice perform explore descend hike pick feed ride tie extend emerge disappear spread trot doze nap enjoy "
    "prepare arrange decorate protect guard flow wave rest hide wait squat relax toss swing plow pet sniff lounge "
    "stretch bark peek peer smoke tower"
)
NOUNS_IN_S = (
    "watch walk jump slide swing board bat cover plant water line frame place set park row work light face point "
    "cut show drink cook cross turn shake open close stretch paint dance share study spray drip splash stream drift "
    "march drop border glow fill land sign mark store pet kick lick stack brush comb shave comb surf ski cycle race"
)

# Verbs whose object may be exchanged, whatever it is, and verbs that people have several objects of as well as one.
OBJECT_VERBS = (
    "hold carry have show depict feature contain see find buy sell watch hug pet touch approach chase include "
    "display photograph surround follow feed meet greet draw paint bring get give"
)
SEVERAL_OBJECTS = "hold carry see watch find paint draw photograph"

# Verbs before a preposition of place, and before one of direction.
STANDING = (
    "sit stand lie lay sleep rest perch park place hide kneel crouch wait seat position set pose eat nap doze squat "
    "relax play hang float hover dance"
)
MOVING = (
    "walk run drive swim fly look kick crawl throw go move head turn hurry travel climb step jump leap get ride "
    "sail dash march lead stroll"
)

# Words before "of": for images, for several things together, for what holds others, for what has the shape of others, and all
# those after which a noun stays a thing of its own.
IMAGES = "photo picture painting sketch drawing photograph image"
GATHERED = (
    "group herd flock pair couple pack school bunch pile row crowd number family line dozen variety collection"
)
HOLDERS = "glass cup bowl plate basket vase pile stack bottle jar box bucket"
FIGURES = "statue sculpture bust figurine slice piece"
WHOLES = (
    f"{IMAGES} {GATHERED} {HOLDERS} illustration portrait render rendering view full statue sculpture close-up "
    "closeup photography crate slice shot art poster logo set cartoon figurine video scene bouquet field tray bag "
    "team crew section cart herd trio troop"
)
# Words for several, and what they are said of.
COLLECTIVES = {
    "herd": "cow horse sheep goat elephant giraffe zebra buffalo deer donkey camel",
    "flock": "sheep goat duck swan goose pelican flamingo pigeon seagull crow raven parrot chicken turkey sparrow "
        "bird",
    "pack": "wolf dog",
    "school": "dolphin whale",
    "bunch": "banana grape carrot rose tulip sunflower daisy lily balloon flower",
    "bouquet": "rose tulip sunflower daisy lily orchid flower",
    "slice": "pizza watermelon melon pineapple cake pie lemon tomato cucumber orange",
    "field": "sunflower tulip daisy pumpkin rose",
    "vase": "rose tulip sunflower daisy lily flower",
}
# Kinds of nouns that stay the same whatever follows "with", and words before "with" that tie what follows to them.
FREE_WITH = "@person @child @pet @worker @hero @livestock @royal @machine_man @dish_from_the_hand @bowl_dish"
TIED_WITH = "covered filled topped made decorated painted dressed"

# Adjectives whose opposite suits whatever they describe, and the words before which they mean something else.
OPPOSITES = {
    "giant": "tiny", "huge": "tiny", "massive": "tiny", "gigantic": "tiny", "enormous": "tiny", "colossal": "tiny", "big": "small",
    "large": "small", "small": "large", "little": "large", "tiny": "giant", "miniature": "giant", "cute": "scary",
    "adorable": "scary", "scary": "cute", "creepy": "cute", "menacing": "friendly", "terrifying": "cute", "angry": "smiling",
    "happy": "sad", "sad": "happy", "smiling": "crying", "crying": "smiling", "laughing": "crying", "fat": "skinny",
    "chubby": "skinny", "obese": "skinny", "skinny": "fat", "slim": "fat", "muscular": "skinny", "young": "old",
    "elderly": "young", "bearded": "clean-shaven", "bald": "long-haired", "transparent": "opaque", "wooden": "metal",
    "metallic": "wooden", "fluffy": "hairless", "furry": "hairless", "rusty": "shiny", "shiny": "rusty", "broken": "intact",
    "ruined": "intact", "colorful": "gray", "colourful": "gray", "futuristic": "medieval", "medieval": "futuristic",
    "cyberpunk": "medieval", "steampunk": "minimalist", "ancient": "futuristic", "modern": "medieval",
    "victorian": "futuristic", "gothic": "minimalist", "baroque": "minimalist", "ornate": "plain", "tall": "short",
    "thick": "thin", "thin": "thick", "dirty": "clean", "messy": "tidy",
    "full": "empty", "round": "square", "symmetrical": "asymmetrical", "minimalist": "ornate", "minimalistic": "ornate",
    "beautiful": "ugly", "gorgeous": "ugly", "handsome": "ugly", "ugly": "beautiful",
}  # fmt: skip
NO_OPPOSITES = {
    "furry": "art", "round": "kick", "full": "body shot length moon hd frame color colour face bloom plate figure armor armour suit view size set",
    "young": "girl boy adult child children kid couple lady crew", "old": "school", "little": "red girl boy", "modern": "art",
    "big": "trouble breasts bang ben bird boss brother city", "large": "breasts view format highlights", "small": "breasts", "tall": "grass",
    "frozen": "movie", "thin": "lines", "thick": "lines strokes", "symmetrical": "face features", "gothic": "art", "baroque": "art",
}  # fmt: skip
LOOKS = frozenset("beautiful gorgeous handsome ugly fat chubby obese skinny slim muscular".split())  # said of people here, not of pictures
PERIODS = frozenset(
    "modern contemporary futuristic future cyberpunk medieval ancient victorian steampunk sci fi retro vintage renaissance baroque "
    "gothic minimalist minimalistic ornate intricate antique roman".split()
)
COLOURS = "red blue green yellow purple orange pink black white"
UNCOLOURED = (
    "sky sea ocean water grass snow sand skin light lights lighting hour carpet planet moon sun wine tea meat metal hole panther "
    "magic friday smoke fire flames clouds cloud night fantasy humor mirror market series noise balance and background backdrop "
    "tones tone hues hue color colour colors eyes hair house paper ink velvet theme palette frame lines line stripes bull widow mood"
)
# What any two things can have to do with each other, by the first word: two words on the left, their opposites on the right.
RELATIONS_ANYWHERE = {
    "next": (("next to", "far away from"),),
    "beside": (("beside", "far away from"),),
    "in": (("in front of", "far away from"), ("in", "next to")),
    "on": (("on top of", "next to"), ("on", "next to"), ("on", "under")),
    "at": (("at", "far away from"),),
    "surrounded": (("surrounded by", "far away from"),),
    "holding": (("holding up", "standing next to"), ("holding", "standing next to")),
    "hanging": (("hanging from", "lying under"),),
    "among": (("among", "far away from"),),
    "inside": (("inside of", "outside of"), ("inside", "outside of")),
    "riding": (("riding on", "standing next to"), ("riding", "standing next to")),
    "driving": (("driving", "standing next to"),),
    "climbing": (("climbing", "standing next to"),),
    "jumping": (("jumping over", "standing next to"),),
    "sitting": (("sitting on top of", "standing next to"), ("sitting on", "standing next to"), ("sitting in", "standing in"),
                ("sitting at", "standing at"), ("sitting under", "standing under")),
    "standing": (("standing on top of", "lying next to"), ("standing on", "lying on"), ("standing in", "sitting in"),
                 ("standing at", "sitting at"), ("standing under", "sitting under")),
    "walking": (("walking on", "lying on"), ("walking in", "sitting in")),
    "running": (("running on", "lying on"), ("running in", "sitting in")),
    "dancing": (("dancing on", "lying on"), ("dancing in", "sitting in")),
    "lying": (("lying on", "standing on"), ("lying in", "standing in")),
    "laying": (("laying on", "standing on"), ("laying in", "standing in")),
    "floating": (("floating above", "lying under"),),
    "flying": (("flying over", "standing in front of"), ("flying above", "standing in front of")),
    "looking": (("looking at", "looking away from"), ("looking towards", "looking away from")),
    "staring": (("staring at", "looking away from"),),
    "facing": (("facing", "facing away from"),),
    "under": (("under", "on top of"),),
    "underneath": (("underneath", "on top of"),),
    "behind": (("behind", "in front of"),),
    "above": (("above", "below"),),
    "below": (("below", "above"),),
}  # fmt: skip
POSES = "sitting standing walking running dancing lying laying"
# What surrounds things instead of standing beside them.
# What must follow some of these relations, or must not.
LANDMARKS = {
    "in": "@container @dish @vessel @vehicle cage bathtub tub", "at": "table desk dining_table counter",
    "on": "@support @container @solid plate tray pillow cushion rug carpet towel couch horse camel elephant donkey counter",
}  # fmt: skip
IN_A_HAND = (
    "cup mug glass phone cigarette flower flowers book pen pencil knife fork spoon wine beer coffee tea drink camera card letter baby "
    "hand hands breath smile microphone rose apple wand bottle cigar pipe torch"
)
SCENERY = (
    "sky moon sun stars water sea ocean river lake wave waves rain snow clouds cloud mountain mountains hill cliff city street road "
    "forest desert field sunset sunrise light lights night air tree trees rainbow town village horizon camera viewer umbrella other "
    "house building roof bridge world earth ground floor room table motorcycle planet sidewalk wall window door"
)
# Places by what surrounds somebody there, with the words that tell of it elsewhere in a caption, and what may stand instead.
SCENES = {
    "forest": "forest jungle woods rainforest grove",
    "desert": "desert wasteland savanna savannah canyon",
    "water": "beach shore seashore coast ocean sea lake river pond harbor harbour pool swamp",
    "town": "city street streets alley town village road sidewalk highway park garden plaza market marketplace courtyard downtown",
    "room": "room kitchen bedroom bathroom office library museum bar pub restaurant cafe church cathedral temple laboratory lab "
    "classroom hospital prison factory warehouse supermarket store shop gym hallway dungeon tavern cave castle palace mansion "
    "hotel theater nightclub club studio basement attic barn garage cafeteria casino ballroom",
    "field": "field meadow farm pasture prairie vineyard",
    "mountain": "mountain mountains hill hills valley cliff",
}
TELLS = {
    "forest": "tree trees leaves moss forest jungle log vines mushroom mushrooms fireflies plants",
    "desert": "sand dune dunes cactus camel sandstorm pyramid pyramids rocks",
    "water": "boat boats ship ships fish swim swimming swims wave waves sand surf surfing surfboard sail sailing sailboat dock pier "
    "diving underwater water seagull seagulls sandcastle splash reflection island palm lily kayak canoe sea ocean beach duck ducks swan",
    "town": "car cars building buildings traffic skyscraper skyscrapers neon bus shop shops houses bench streets street flowers "
    "skyline road tree trees",
    "room": "table chair chairs tables wall walls window windows floor bed sofa couch shelf shelves desk counter stove sink door lamp "
    "throne torch torches bartender waiter doctor nurse patient teacher students books furniture interior ceiling fireplace "
    "toilet bath shower drinking drinks",
    "field": "flower flowers cow cows sheep horses wheat corn barn tractor grass sunflowers crop crops soccer football baseball "
    "poppies tulips tulip",
    "mountain": "snow snowy ski skiing peak cliff climbing climber mountain mountains goat river cabin house castle village",
}
PLACES_INSTEAD = {
    "forest": "in a forest", "desert": "in a desert", "water": "on a beach", "town": "on a city street", "room": "in a supermarket",
}  # fmt: skip

# Words beside which a thing stays alone.
ONE_ONLY = frozenset(
    "each both single one lone only two three four five half pair another other holding wearing riding with and its his her logo sign "
    "map view kitchen room landscape close sunset sunrise sun moon sky earth world wall universe galaxy canal".split()
)

# Phrases that are one thing, none of whose words is ever exchanged.
FIXED = (
    "on the phone, dungeons and dragons, orange juice, apple juice, white wine, red wine, black and white, black "
    "white, red panda, blue jay, ice cream cone, orange tree, apple tree, apple pie, cherry tree, cherry trees, "
    "lemon slices, green beans, green tea, black coffee, black tea, green onion, green onions, red onion, stained "
    "glass, magnifying glass, glass case, milky way, high chair, wedding cake, red cross, black hole, white "
    "chocolate, brown rice, brown sugar, white rice, white bread, bow and arrow, horseshoe crab, ferris wheel, "
    "rolling stone, light jacket, light bulb, light bulbs, street light, street lights, traffic lights, light "
    "source, still life, big bang, big ben, white balance, red light, green light, orange peel, rocking horse, sea "
    "horse, clothes horse, stuffed animal, time square, left handed, right handed, new york, new year, new years, "
    "old town, green screen, blue screen, blue whale, killer whale, great white, white shark, sea lion, mountain "
    "lion, fruit bat, baby blue, sky blue, cat litter, cat tree, dog bed, dog food, zebra crossing, pedestrian "
    "crossing, road crossing, railroad crossing, dog house, tree house, police station, fire station, hair salon, "
    "table tennis, tennis court, soccer field, baseball field, chocolate chip, chocolate chips, fox news, bird "
    "feeder, bird bath, eagle eye, tiger lily, bear hug, duck face, bull's eye, fish and chips, peanut butter, tea "
    "party, tea set, tea bag, coffee shop, coffee bean, coffee beans, coffee stand, camera lens, phone booth, phone "
    "call, car park, car wash, cross section, fork in the road, apple slices, orange slices, rose gold, rush hour, open air, in half, "
    "face paint, war paint, hair dryer, full moon, bus stop, train station, bus station, train tracks, train track, "
    "gold medal, wine bottle, golden hour, stop motion, rose petals, cake stand, right before, right after, right "
    "now, right next, left over, full bloom"
)

# Words that count things once more, and words that only suit two: captions with one of them keep their numbers.
COUNTING = (
    "each both respectively first second third pair half dozen another neither either twin twins duo trio other "
    "others whose two-person vs versus couple"
)
TWO_ONLY = "each other, one another, back to back, face to face, shaking hands, hand in hand, facing each"
# Plural nouns whose number is not one of objects in the image.
UNITS = (
    "hours minutes seconds days weeks months years times inches feet meters metres miles pounds degrees percent "
    "pieces sides legs arms hands eyes ears wings feet wheels parts halves sizes colors colours styles types kinds "
    "ways hundreds thousands pages bedrooms bathrooms stories storeys floors teeth teams others dimensions seats "
    "layers shades tones details detail"
)

# Words for one meaning beyond the groups, nouns in the singular, and verbs in their base form: an edit that only exchanges
# these contradicts nothing. A word may have several meanings.
SAME = "photo, photograph, picture, image | street, road | next to, beside"
ALSO_SAME = (
    "car, automobile, auto, motorcar | old, aged, elderly, ancient, antique | rotten, decayed, decaying, rotting | truck, "
    "lorry | sofa, couch, settee | stone, rock | rock, boulder | path, trail, footpath | kid, child, youngster | boat, "
    "vessel | ship, vessel | bucket, pail | rug, carpet | purse, handbag | bike, bicycle | trash, garbage, rubbish | "
    "sidewalk, pavement | store, shop | house, home | mug, cup | forest, woods, wood | autumn, fall | hat, cap | jacket, "
    "coat | hen, chicken | hare, rabbit, bunny | rooster, cockerel | road, roadway, street | phone, telephone, cellphone, "
    "smartphone | television, tv | refrigerator, fridge | stove, cooker | faucet, tap | glasses, eyeglasses, spectacles | "
    "infant, baby | doctor, physician | policeman, cop | lawn, grass | meadow, field, pasture | mountain, peak | brook, "
    "creek, stream | sea, ocean | shore, coast, seashore | harbor, harbour, port | seagull, gull | pig, hog, swine | snake, "
    "serpent | beautiful, pretty, lovely, gorgeous, attractive | big, large, huge, giant, enormous, gigantic, massive, "
    "immense | small, little, tiny, miniature | fast, quick, rapid | happy, cheerful, joyful, glad, merry | sad, unhappy, "
    "sorrowful | angry, furious, mad | calm, peaceful, tranquil, serene | broken, damaged, shattered | dirty, filthy, grimy "
    "| shiny, glossy, gleaming | bright, vivid | crowded, packed, busy | empty, vacant, deserted | wet, soaked, damp | thin, "
    "slim, slender | fat, obese, overweight, chubby | modern, contemporary | wooden, timber | metal, metallic | gray, grey | "
    "crimson, scarlet, red | violet, purple | colorful, colourful, multicolored, multicoloured | foggy, misty, hazy | rainy, "
    "raining | snowy, snowing | cloudy, overcast | night, nighttime | noon, midday | dusk, twilight, nightfall | dawn, "
    "daybreak, sunrise | sunset, sundown | beneath, under, underneath, below | above, over | near, close, nearby | inside, "
    "within, in | onto, on, upon, atop | toward, towards | among, amid, amongst, amidst | across, over | through, via"
)
SAME_VERBS = (
    "look, gaze, stare, glance | jump, leap, hop | hold, grasp, grip, clutch | sit, seat | sleep, nap, doze, slumber | eat, "
    "munch, devour | cut, slice, chop | throw, toss, hurl | speak, talk, chat | shout, yell, scream | stroll, walk, wander | "
    "run, sprint, dash, race | lie, lay, recline | crouch, squat | fix, repair | start, begin | watch, observe | soar, fly, "
    "glide | shine, glow | gather, collect | consume, drink, sip"
)
# What a word may also be called more closely: an image of the one may show the other.
KINDS_OF = {
    "person": "@human",
    "human": "@human",
    "adult": "@person @worker @people !child !kid !baby !toddler !teenager !boy !girl",
    "child": "boy girl toddler baby",
    "kid": "boy girl toddler baby",
    "worker": "@worker construction_worker carpenter mechanic gardener",
    "athlete": "@player",
    "player": "@player",
    "musician": "drummer guitarist singer street_musician",
    "artist": "painter musician singer dancer",
    "parent": "mother father",
    "animal": "@animal @bird_of_the_air @small_bird @sea_bird @reptile @insect @reef_animal @sea_animal @dog_breed",
    "creature": "@animal @mythical_animal @insect",
    "monster": "dragon zombie troll golem goblin",
    "pet": "@pet @hamster @dog_breed",
    "bird": "@bird_of_the_air @small_bird @sea_bird @water_bird @poultry @rooster @big_bird penguin gull chick",
    "dog": "@dog_breed puppy police_dog guide_dog",
    "cat": "kitten",
    "horse": "pony",
    "cow": "bull calf",
    "sheep": "lamb",
    "bear": "@bear panda",
    "fish": "shark",
    "insect": "@insect ant fly mosquito !spider !snail",
    "bug": "@insect ant fly mosquito",
    "reptile": "lizard turtle tortoise snake crocodile alligator",
    "vehicle": "@vehicle",
    "car": "@special_car jeep limousine convertible sports_car race_car !fire_truck !school_bus",
    "truck": "fire_truck",
    "boat": "@boat fishing_boat speedboat raft yacht",
    "ship": "ferry cruise_ship pirate_ship yacht",
    "train": "passenger_train freight_train steam_train subway_train",
    "aircraft": "@aircraft drone jet",
    "plane": "jet",
    "building": "@building @other_building lighthouse",
    "house": "cottage cabin hut mansion farmhouse villa",
    "shop": "bakery bookstore pharmacy cafe",
    "furniture": "@furniture @chair @sofa",
    "chair": "armchair rocking_chair",
    "table": "desk dining_table coffee_table kitchen_table",
    "container": "@container @vessel",
    "bag": "backpack handbag purse suitcase",
    "tool": "@hand_tool @garden_tool",
    "weapon": "@weapon",
    "instrument": "@string_instrument @big_instrument drum",
    "toy": "@toy",
    "hat": "cap beanie top_hat cowboy_hat santa_hat straw_hat",
    "shoe": "boot sandal sneaker slipper",
    "jewelry": "@jewel",
    "fruit": "@fruit @big_fruit @berry",
    "vegetable": "@vegetable broccoli spinach cauliflower celery cabbage",
    "food": "@food @fruit @vegetable @dish_from_the_hand @pastry @cake @big_cake",
    "drink": "@drink @hot_drink",
    "dessert": "@cake @big_cake",
    "plant": "@plant @flower @potted_plant",
    "flower": "@flower",
    "tree": "@tree @tropical_tree @northern_tree",
    "shape": "@figure",
    "place": "@place",
}

NUMBERS = {
    word: value
    for value, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}
NUMBERS |= {str(value): value for value in range(1, 101)}
NUMBERS |= {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
SYNONYMS = {
    word.strip(): part.split(",")[0].strip()
    for block in [SAME, *(group.words for group in GROUPS)]
    for part in block.split("|")
    for word in part.split(",")
    if " " not in word.strip()
}


def _meanings_of(blocks: str) -> dict[str, frozenset[int]]:
    """The numbers of the meanings that each word of a text of meanings has."""
    found: dict[str, set[int]] = {}
    for number, part in enumerate(blocks.split("|")):
        for word in part.split(","):
            found.setdefault(word.strip(), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}


MEANINGS, MEANINGS_OF_VERBS = _meanings_of(ALSO_SAME), _meanings_of(SAME_VERBS)
