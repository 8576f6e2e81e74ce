"""What the classifier knows of French and English: concepts (sets of words) and rules (sets of concepts).

Words are lower-case without accents. `stem*` stands for every word that begins so, `two_words` for words that follow
each other (articles between them do not count). A plain word also stands for its plural and feminine.
"""

from __future__ import annotations

from services.router.account_index import words

ACCOUNT = "ACCOUNT"
"""Present when the text names an account."""

STOPWORDS = words(
    """a an the of for to in on at with by from and or is are be was were do does did has have had it its this that
    these those we our us i me my you your they their them he she as so if but can could would should will please
    pls le la les l un une des du de d et ou en au aux dans sur avec pour par chez est sont etre a ont avons ai as y
    il elle ils elles on nous vous je tu me m te t se s sa son ses leur leurs notre nos votre vos mon ma mes ce cet
    cette ces c j qu n ne que svp stp"""
)

CONCEPTS: dict[str, str] = {
    # what is asked about
    "health": "health healthy healthier healthiness sante forme wellbeing good_shape bad_shape what_shape",
    "score": "score scoring note points",
    "colour": "green amber red vert verte rouge orange colour color couleur",
    "doing": (
        "how_doing comment_va comment_vont comment_porte comment_portent se_portent se_porte how_is_going "
        "doing_ok doing_well doing_fine va_bien vont_bien"
    ),
    "indicator": "indicator indicateur metric metrique kpi measure mesure",
    "usage": "usage use uses used using utilis* consum* consomm* activity activite se_sert se_servent",
    "users": "active_user utilisateur_actif utilisateurs_actifs actifs_mensuels actifs_quotidiens",
    "adoption": "adopt* engagement breadth depth",
    "licence": "licence license licences seat sieges",
    "login": "login logins log_in log_ins logged_in sign_in connexion connect connectent connecter sessions",
    "dau": "dau wau mau dau_mau",
    "retention": "retention nrr grr net_revenue_retention gross_revenue_retention",
    "revenue": "revenue revenu arr mrr",
    "ticket": "ticket",
    "alert": "alert* warning avertissement alarm* red_flag signaux_faibles warning_sign",
    "risk": "risk risks risky at_risk risque risquent risquer danger threatened menace menaces",
    "churn": (
        "churn* resili* attrition leave leaving leaves quitt* going_away walk_away partir depart departs partent "
        "nous_quitter desabonn* cancel_contract lose_them rescue_first save_first"
    ),
    "survey": "survey surveys enquete sondage sonder questionnaire poll polls polling campaign campagne wave vague",
    "nps": "nps net_promoter enps",
    "csat": "csat ces customer_effort effort_score",
    "satisfaction": (
        "satisfaction satisfied satisfait satisfaits happy happier happiness content contents rating ratings "
        "marks grades"
    ),
    "promoter": "promoter promoteur passive passif",
    "detractor": "detract*",
    "unhappy": (
        "unhappy dissatisf* insatisf* mecontent* angry upset bad_score low_score scored_low scored_us_low "
        "rated_low mauvaise_note mauvaises_notes"
    ),
    "loop": "loop loops boucle boucles closed_loop closed_loops boucle_fermee",
    "case": "case cases",
    "feedback": "feedback feedbacks retour retours",
    "answer": "answer answers reply replies response responses reponse reponses repondu respond* repondant repondants",
    "qbr": "qbr qbrs quarterly_business_review revue_affaires revues_affaires",
    "ebr": "ebr ebrs executive_business_review executive_business_reviews",
    "review": "review reviews revue revues",
    "deck": "deck decks slides pack presentation presenter support diaporama powerpoint pptx material bilan dossier",
    "meeting": "meeting reunion rendez_vous point session seance",
    "quarter": "quarter quarterly trimestre trimestr* q1 q2 q3 q4 t1 t2 t3 t4",
    "executive": (
        "exec execs executive executives executif dirigeant* direction comex codir ceo cfo coo cto dg pdg sponsor "
        "c_level c_suite leadership comite_direction comite_executif haut_niveau vp"
    ),
    "strategic": "strategic strategique annual annuel annuelle yearly",
    "plan": "plan plans",
    "success": "success reussite succes",
    "action_plan": (
        "action_plan action_plans plan_action plans_action joint_plan plan_commun plan_conjoint mutual_plan"
    ),
    "goal": "goal objective objectif target cible promised outcomes",
    "milestone": "milestone jalon",
    "progress": "progress progression avancement avance track along achieved atteint atteints accomplished",
    "playbook": "playbook playbooks runbook",
    "play": "play plays scenario procedure protocole sequence parcours workflow",
    "onboarding": "onboard* accueil demarrage_client mise_en_route",
    "rescue": "rescue sauvetage save_plan renewal renouvellement low_adoption win_back escalation",
    "task": "task tache step etape todo",
    "touchpoint": (
        "touchpoint touchpoints touch_point touch_points last_touch next_touch dernier_point prochain_point "
        "derniere_interaction cadence point_contact points_contact interaction*"
    ),
    "contact": (
        "contact* recontact* talk talked talking speak spoke spoken call called calling phone phoned reach "
        "reached met heard touch parl* appel* echang* telephon* joint joindre convers* discut* discussion relanc* "
        "nouvelles rencontr*"
    ),
    "segment": "segment* tiering",
    "tier": "tier tiers palier paliers categor* echelon mid_market enterprise_account smb",
    "coverage": (
        "high_touch mid_touch low_touch tech_touch pooled pool hightouch lowtouch techtouch midtouch mutualise* "
        "coverage_model modele_couverture"
    ),
    "voc": (
        "voc voice_customer voice_customers voice_client voix_client voix_clients customer_voice ecoute_client "
        "ecoute_clients"
    ),
    "theme": "theme themes topic topics thematique* sujets_abordes",
    "verbatim": "verbatim* comments commentaire commentaires remarque remarques",
    "sentiment": "sentiment sentiments tonalite ressenti",
    "say": (
        "say says said saying tell tells telling disent dit dire disait parlent talking_about speak_about pensent "
        "think thinks pense"
    ),
    "feature": "feature features fonctionnalite fonctionnalites fonction fonctions functionality functionalities",
    "wish": (
        "request requests requested requesting asking_for ask_for asked_for wish wishes wished demand* souhait* "
        "reclam* attendues wishlist vote votes waiting_for wanted needed_by most_wanted"
    ),
    "want": (
        "want wants wanting ask asks asked asking need needs needed desire* veut veulent voudraient attendent "
        "build develop"
    ),
    "improve": "improvement improvements improve amelior* enhancement enhancements evolutions roadmap backlog",
    "complain": (
        "complain* plaign* plainte plaintes reproch* frustrat* grievance* irritant irritants critique critiques "
        "dislike hate"
    ),
    "product": (
        "product products produit produits module modules dashboard dashboards tableau_bord app apps appli "
        "application interface export exports reporting integration integrations api mobile"
    ),
    "board": (
        "advisory_board advisory_boards cab cabs comite_consultatif comite_client comite_clients "
        "comite_utilisateurs conseil_consultatif conseil_client conseil_clients club_utilisateurs club_clients "
        "customer_council advisory_council client_council user_council customer_board advisory consultatif"
    ),
    "member": (
        "member members membre membres candidate candidates candidat candidats seat_on siege invite inviter "
        "agenda ordre_jour minutes ambassador ambassadeur ambassadors ambassadeurs"
    ),
    # what is done with it, and for whom
    "book": (
        "account accounts customer customers client clients compte comptes portfolio portefeuille book parc users "
        "utilisateurs"
    ),
    "send": (
        "fais_partir faire_partir resend send sends sent sending launch launched lance lancer lancez lancement "
        "envoi* envoy* schedule scheduled planifi* programmer programmez programme_une creer create cree diffus* "
        "distribut* administer interrog* ask_users trigger go_out reminder push"
    ),
    "result": (
        "result results resultat* analys* trend trends tendance evolution evolu* average mean moyenne compar* "
        "repartition breakdown break_down distribution margin marge progress* improved increased dropped current "
        "actuel"
    ),
    "rate": "rate rates taux percentage pourcentage share ratio part",
    "count": "many combien number nombre count",
    "top": "top most plus_demandees plus_demandes best main principal principaux principales",
    "why": "why pourquoi explain explique* reason raison cause dragged",
    "change": (
        "change* chang* drop dropped drops fell fall falling decline* declin* baiss* chut* perdu lost monte "
        "hausse moved went improved gagne"
    ),
    "who": "who whom qui which quel quels quelle quelles",
    "when": "when quand date combien_temps how_long depuis_quand since_when",
    "last": "last latest dernier derniere derniers dernieres recent previous",
    "next": "next prochain prochaine prochains prochaines upcoming due soon",
    "history": "history historique log list timeline liste journal",
    "late": "overdue late retard behind waiting pending attente remaining remain restent",
    "open": "open ouvert ouverte ouverts ouvertes unresolved en_cours ongoing outstanding",
    "close": "close closed closing ferm* boucl* clos",
    "start": (
        "start started starting starts launch run running kick_off kick begin demarr* lanc* declench* trigger* "
        "apply applique* activat* activ* stop stopp* cancel annul* arret*"
    ),
    "follow": (
        "follow followup follow_up follow_ups suivi suivre rappel* recontact* call_back called_back contacted "
        "callback relanc* handled traite traites owner get_back"
    ),
    "prepare": "prepar* put_together generate genere* set_up organis*",
    "by_segment": "by_segment per_segment par_segment segment_par_segment by_tier per_tier par_palier",
    "period": "today aujourd hui tomorrow demain week weekly semaine month monthly mois hier yesterday",
    "agree": "agree agreed agreement convenu convenus fixe fixes joint commun",
    "report": "report rapport bilan summary synthese resume summarise summarize",
    "programme": "programme program dispositif",
}

STRONG, GOOD, FAIR, HINT = 0.95, 0.85, 0.68, 0.4
"""Alone a STRONG, GOOD or FAIR match passes the default bar; a HINT only names a candidate."""

RULES: dict[str, dict[float, str]] = {
    "health.score": {
        STRONG: "health+score score+change+ACCOUNT health+by_segment",
        GOOD: "health+ACCOUNT health+book score+ACCOUNT colour+ACCOUNT colour+change+ACCOUNT doing+ACCOUNT",
        FAIR: "score+book score+change score+why colour+book doing+book",
        HINT: "health score doing",
    },
    "health.indicators": {
        STRONG: (
            "indicator+usage usage+result usage+licence users users+ACCOUNT+count adoption+feature adoption+rate "
            "dau retention+revenue churn+rate churn+rate+retention indicator+health indicator+health+ACCOUNT "
            "usage+feature"
        ),
        GOOD: (
            "indicator usage+ACCOUNT usage+indicator usage+book licence+rate licence+book usage+product+ACCOUNT "
            "usage+product+book licence+ACCOUNT adoption login+ACCOUNT login+count+ACCOUNT retention"
        ),
        FAIR: "usage+period login+book login+count ticket+ACCOUNT ticket+count",
        HINT: "usage licence login ticket",
    },
    "health.alerts": {
        STRONG: "alert+open alert+ACCOUNT alert+book risk+churn risk+health",
        GOOD: "alert risk+book risk+ACCOUNT churn+ACCOUNT churn+book churn+who",
        HINT: "churn risk",
    },
    "feedback.survey": {
        STRONG: (
            "survey+send survey+send+ACCOUNT nps+send csat+send nps+survey csat+survey survey+satisfaction "
            "survey+send+nps survey+send+csat survey+send+satisfaction survey+next survey+nps+next "
            "survey+when+last+send survey+follow+answer"
        ),
        GOOD: "survey+when survey+last survey+ACCOUNT satisfaction+send",
        FAIR: "survey+book",
        HINT: "survey",
    },
    "feedback.analysis": {
        STRONG: (
            "satisfaction+result nps+result csat+result survey+result survey+satisfaction+ACCOUNT+last "
            "survey+result+satisfaction survey+result+answer survey+result+ACCOUNT survey+result+nps "
            "survey+result+csat survey+answer+rate survey+rate promoter+detractor nps+by_segment csat+by_segment "
            "detractor+count+promoter detractor+rate nps+rate nps+ACCOUNT csat+ACCOUNT nps+score csat+score "
            "nps+score+ACCOUNT csat+score+ACCOUNT survey+satisfaction+change survey+satisfaction+last "
            "survey+satisfaction+result+ACCOUNT survey+satisfaction+last+ACCOUNT"
        ),
        GOOD: "nps csat satisfaction+ACCOUNT satisfaction+book promoter",
        FAIR: "satisfaction detractor+count",
    },
    "feedback.closed_loop": {
        STRONG: (
            "loop+close loop+open loop+feedback detractor+follow detractor+contact detractor+close detractor+late "
            "detractor+open unhappy+follow unhappy+contact unhappy+close case+feedback case+open feedback+follow "
            "loop+close+book detractor+who+follow detractor+follow+contact unhappy+follow+contact unhappy+answer "
            "unhappy+late unhappy+late+answer detractor+follow+count detractor+late+count "
            "detractor+late+contact+who detractor+contact+who unhappy+contact+ACCOUNT detractor+contact+ACCOUNT "
            "detractor+contact+last"
        ),
        GOOD: (
            "loop detractor+ACCOUNT unhappy+case case+detractor case+follow unhappy+who answer+follow+ACCOUNT "
            "case+ACCOUNT"
        ),
        FAIR: "unhappy+ACCOUNT",
        HINT: "detractor unhappy",
    },
    "qbr.review": {
        STRONG: "qbr review+quarter deck+quarter deck+review meeting+quarter+ACCOUNT review+quarter+next",
        GOOD: "review+ACCOUNT meeting+quarter",
        FAIR: "review+book review+next+prepare deck+ACCOUNT",
        HINT: "review deck",
    },
    "qbr.success_plan": {
        STRONG: (
            "plan+success plan+success+ACCOUNT goal+plan goal+ACCOUNT goal+progress goal+late milestone+late "
            "milestone+ACCOUNT action_plan+ACCOUNT plan+progress+ACCOUNT goal+agree"
        ),
        GOOD: "goal+book milestone action_plan plan+milestone",
        FAIR: "plan+ACCOUNT",
        HINT: "goal plan+progress plan",
    },
    "qbr.ebr": {
        STRONG: (
            "ebr review+executive review+strategic review+executive+strategic deck+executive deck+strategic "
            "review+executive+ACCOUNT review+strategic+ACCOUNT review+executive+book deck+executive+review "
            "deck+executive+ACCOUNT ebr+deck+ACCOUNT review+executive+strategic+ACCOUNT"
        ),
        GOOD: "meeting+executive+ACCOUNT meeting+strategic+ACCOUNT",
        FAIR: "executive+ACCOUNT",
        HINT: "meeting+executive",
    },
    "ops.playbook": {
        STRONG: (
            "playbook playbook+start play+start+ACCOUNT play+onboarding play+task play+rescue onboarding+plan "
            "onboarding+plan+ACCOUNT play+risk playbook+risk playbook+adoption playbook+risk+ACCOUNT "
            "play+adoption playbook+adoption+ACCOUNT playbook+churn playbook+rate playbook+detractor "
            "playbook+survey playbook+progress+plan"
        ),
        GOOD: "play+start onboarding+start onboarding+ACCOUNT task+ACCOUNT rescue+start",
        FAIR: "play+ACCOUNT task+late",
        HINT: "play onboarding task",
    },
    "ops.touchpoint": {
        STRONG: (
            "touchpoint contact+last+book contact+last+ACCOUNT contact+next+ACCOUNT contact+when+ACCOUNT "
            "contact+history+ACCOUNT contact+last+when"
        ),
        GOOD: (
            "contact+next+book contact+when+book contact+who+book contact+who+ACCOUNT contact+history+book "
            "contact+late+book"
        ),
        FAIR: (
            "contact+last contact+next contact+when contact+who+period meeting+last+ACCOUNT meeting+when+ACCOUNT "
            "contact+next+period contact+ACCOUNT contact+book contact+late"
        ),
        HINT: "contact+who contact+history contact",
    },
    "ops.segmentation": {
        STRONG: (
            "segment tier+ACCOUNT coverage segment+change by_segment+book by_segment+result+book coverage+book "
            "segment+book tier+book segment+change+ACCOUNT tier+change+ACCOUNT segment+revenue"
        ),
        GOOD: "tier",
        HINT: "by_segment",
    },
    "voc.programme": {
        STRONG: (
            "voc theme+verbatim theme+book sentiment+verbatim theme+sentiment+verbatim say+ACCOUNT verbatim+count "
            "voc+report voc+report+quarter voc+programme theme+by_segment theme+say+book voc+adoption "
            "voc+verbatim+rate"
        ),
        GOOD: "verbatim theme sentiment+ACCOUNT say+book contact+top+book feedback+theme",
        FAIR: "sentiment sentiment+book feedback+report",
        HINT: "say",
    },
    "voc.product_feedback": {
        STRONG: (
            "feature+wish feature+top feature+top+wish feature+improve feature+wish+ACCOUNT product+feedback "
            "product+wish feature+want product+want+book product+complain complain+book wish+top want+top "
            "wish+top+book improve+wish+book product+verbatim product+theme product+sentiment feature+verbatim "
            "product+say+book feature+say+book product+complain+usage+book feature+by_segment"
        ),
        GOOD: (
            "feature+book feature+ACCOUNT product+want+ACCOUNT complain wish+ACCOUNT wish+book improve+wish "
            "improve+product improve+book product+improve"
        ),
        FAIR: "want+ACCOUNT want+book feedback+ACCOUNT",
        HINT: "feature improve feedback",
    },
    "voc.advisory_board": {
        STRONG: (
            "board board+member board+member+ACCOUNT board+next board+next+meeting board+book board+last+meeting "
            "board+send+ACCOUNT"
        ),
        HINT: "member",
    },
}
"""Demand → weight → rules; a rule is concepts joined by `+`, all of which must be there."""

DIMENSIONS = ("segment", "tier", "coverage", "by_segment")
CUT_BY_DIMENSION = words(
    """nps csat satisfaction health alert indicator adoption dau retention theme verbatim feature playbook qbr survey"""
)
"""Concepts that are cut by segment rather than asked about it: "the NPS of mid touch" is a question about the NPS."""

ORDINARY = words(
    """portent porte ports parts party place plane planet plant plans clan start stare share scare store stone notes
    nose price prime match march watch batch patch catch weather whether leather father rather gather feather letter
    better later water worse house mouse white write while where there these three those about above after again
    along alone other under until would could should right night light might sight fight eight sales pales males
    table cable labor labour lever level lovely leave sleep slept steep sweep sheet sheep shelf metro metre merci
    mardi matin maison main faire foire fille file ville vile route toute doute coute ecole recette assiette musique
    physique rouge bouge bonne bonnes votre autre entre cadre cadres carte cartes porte portes poste postes ligne
    lignes livre livres vivre suite pause cause chose choses jouer jour jours louer lourd court cours course courses
    source sources force forces"""
)
"""Ordinary words that are one letter from a known one, and no typo of it."""

NEGATIONS = words("not no pas non without sans aucun aucune jamais never neither ni")
INSTEAD = (("instead", "of"), ("rather", "than"), ("au", "lieu"), ("plutot", "que"))
DETERMINERS = words("the a an any le la les l un une des du de d about sur mon ma mes my our notre nos")
POSSESSION = words("a ai as ont avons avez have has had having y avait toujours encore still yet")
ORDERS = words(
    """do don dont please never ne n surtout merci send launch run start schedule open close create prepare survey ask
    call contact stop"""
)
CLAUSE_WORDS = words("but mais just only instead seulement juste plutot want veux wants voudrais")
