"""The words of the caption grammar: for every value its canonical phrase first, then the paraphrases."""

SUBJECT_WORDS = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "box", "block"),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "hoop", "donut"),
    "fish": ("fish",),
    "jellyfish": ("jellyfish", "jelly"),
    "balloon": ("balloon",),
    "rocket": ("rocket", "spaceship", "rocket ship"),
    "flower": ("flower", "blossom"),
    "ghost": ("ghost", "phantom"),
    "boat": ("boat", "sailboat", "ship"),
}
COLOR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "lemon yellow"),
    "green": ("green", "emerald"),
    "blue": ("blue", "sapphire"),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "white": ("white", "ivory"),
    "cyan": ("cyan", "turquoise"),
}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("", "medium-sized"),
    "big": ("big", "large", "huge"),
}
# Finite verb and participle.
_LEFT_OR_RIGHT = (
    ("drifts {}", "drifting {}"),
    ("drifts to the {}", "drifting to the {}"),
    ("slides {}", "sliding {}"),
    ("moves to the {}", "moving to the {}"),
    ("glides to the {}", "gliding to the {}"),
)
_ZIGZAG = (("zigzags {}", "zigzagging {}"), ("zigzags to the {}", "zigzagging to the {}"))
MOTION_WORDS = {
    "stays still": (
        ("stays still", "staying still"),
        ("stands still", "standing still"),
        ("does not move", "not moving"),
        ("floats in place", "floating in place"),
    ),
    "drifts left": tuple((a.format("left"), b.format("left")) for a, b in _LEFT_OR_RIGHT),
    "drifts right": tuple((a.format("right"), b.format("right")) for a, b in _LEFT_OR_RIGHT),
    "rises": (
        ("rises", "rising"),
        ("floats up", "floating up"),
        ("ascends", "ascending"),
        ("climbs", "climbing"),
        ("goes up", "going up"),
    ),
    "falls": (
        ("falls", "falling"),
        ("floats down", "floating down"),
        ("sinks", "sinking"),
        ("descends", "descending"),
        ("goes down", "going down"),
    ),
    "bounces": (
        ("bounces", "bouncing"),
        ("hops", "hopping"),
        ("bounces up and down", "bouncing up and down"),
        ("jumps up and down", "jumping up and down"),
    ),
    "orbits": (
        ("orbits", "orbiting"),
        ("circles", "circling"),
        ("moves in a circle", "moving in a circle"),
        ("goes round and round", "going round and round"),
    ),
    "spins": (
        ("spins", "spinning"),
        ("rotates", "rotating"),
        ("twirls", "twirling"),
        ("turns around", "turning around"),
    ),
    "pulses": (
        ("pulses", "pulsing"),
        ("throbs", "throbbing"),
        ("grows and shrinks", "growing and shrinking"),
    ),
    "sways": (
        ("sways", "swaying"),
        ("swings", "swinging"),
        ("sways from side to side", "swaying from side to side"),
        ("rocks from side to side", "rocking from side to side"),
    ),
    "zigzags left": tuple((a.format("left"), b.format("left")) for a, b in _ZIGZAG),
    "zigzags right": tuple((a.format("right"), b.format("right")) for a, b in _ZIGZAG),
}
SCENE_WORDS = {  # {} stands for the colour of the wall
    "night": ("under a starry night sky", "under the stars", "in a starry sky", "at night under the stars"),
    "sunset": ("in front of a sunset over the sea", "at sunset", "over the sea at sunset", "in the evening sun"),
    "ocean": ("deep under the ocean", "under water", "in the deep sea", "under the sea"),
    "meadow": ("over a green meadow", "in a meadow", "above a grassy field", "over green hills"),
    "snow": ("in falling snow", "in the snow", "on a snowy day", "in winter"),
    "desert": ("above desert dunes", "in the desert", "over sand dunes", "in a sandy desert"),
    "city": ("in a city at night", "in the city", "above the city at night", "in front of tall buildings"),
    "wall": ("in front of a {} wall", "against a {} wall", "before a {} wall"),
}
CAMERA_WORDS = {
    "none": ("", "the camera is still", "the camera stays fixed"),
    "pan left": ("the camera pans left", "the camera pans to the left", "the camera moves left", "panning left"),
    "pan right": ("the camera pans right", "the camera pans to the right", "the camera moves right", "panning right"),
    "zoom in": ("the camera zooms in", "the camera moves closer", "zooming in"),
    "zoom out": ("the camera zooms out", "the camera moves back", "zooming out"),
}

# Further words that prompts may use and captions do not; longer phrases win over the words in them.
ALSO_SUBJECT = {
    "ball": ("orb", "beach ball"),
    "ring": ("doughnut", "torus"),
    "fish": ("goldfish",),
    "jellyfish": ("jelly fish",),
    "rocket": ("space ship", "rocketship"),
    "flower": ("daisy", "bloom"),
    "ghost": ("spirit",),
    "boat": ("sailing boat", "sailing ship", "yacht"),
}
ALSO_COLOR = {
    "cyan": ("aqua", "teal"),
    "yellow": ("golden",),
    "pink": ("rosy",),
    "blue": ("dark blue",),
    "purple": ("lilac",),
}
ALSO_SIZE = {
    "small": ("mini", "minuscule"),
    "medium": ("medium", "middle-sized"),
    "big": ("giant", "enormous", "great"),
}
ALSO_MOTION = {
    "drifts left": ("from right to left",),
    "drifts right": ("from left to right",),
    "stays still": (
        "still",
        "stay still",
        "holds still",
        "rests",
        "resting",
        "motionless",
        "is not moving",
        "hovers",
        "hovering",
    ),
    "rises": (
        "rise",
        "flies up",
        "flying up",
        "takes off",
        "lifts off",
        "moves up",
        "soars",
        "soaring",
        "moves upwards",
    ),
    "falls": ("fall", "drops", "dropping", "flies down", "moves down", "comes down", "moves downwards", "tumbles"),
    "bounces": ("bounce", "bouncy", "jumps", "jumping"),
    "orbits": (
        "orbit",
        "moves in circles",
        "goes in circles",
        "flies in circles",
        "flies in a circle",
        "swims in circles",
    ),
    "spins": ("spin", "turns", "turning", "whirls", "whirling", "revolves"),
    "pulses": ("pulse", "pulsates", "pulsating", "beats", "beating", "shrinks and grows"),
    "sways": ("sway", "wobbles", "wobbling", "rocks", "rocking", "swings back and forth", "sways back and forth"),
}
ALSO_SCENE = {
    "night": ("night sky", "starry sky", "starry night", "at night", "night", "starry", "moonlight", "moonlit"),
    "sunset": (
        "sunset over the ocean",
        "sunset over the sea",
        "orange sunset",
        "red sunset",
        "sunset",
        "dusk",
        "evening",
    ),
    "ocean": ("underwater", "blue ocean", "blue sea", "ocean", "sea", "reef"),
    "meadow": ("green meadow", "green field", "green hills", "green grass", "meadow", "field", "hills", "grass"),
    "snow": ("white snow", "snowfall", "snowstorm", "snow", "snowy", "winter"),
    "desert": ("yellow desert", "yellow sand", "desert", "dunes", "sand"),
    "city": ("city at night", "night city", "city", "town", "skyline", "buildings", "skyscrapers"),
    "wall": ("wall",),
}
ALSO_CAMERA = {
    "none": ("static camera", "fixed camera", "still camera", "the camera does not move", "the camera stays still"),
    "pan left": ("pan left", "pan to the left", "panning to the left", "the camera moves to the left"),
    "pan right": ("pan right", "pan to the right", "panning to the right", "the camera moves to the right"),
    "zoom in": ("zoom in", "zooms in", "the camera comes closer", "the camera gets closer"),
    "zoom out": ("zoom out", "zooms out", "the camera pulls back", "the camera moves away"),
}
